// The constant parts of the page of plot.h.
#pragma once
#include <string>

namespace hadal {

extern const char* const kPageStyle;   // CSS
extern const char* const kPageScript;  // JavaScript: tooltips; the page is complete without

// A whole page: `title` is text, `body` is HTML.
std::string page_html(const std::string& title, const std::string& body);

}  // namespace hadal
