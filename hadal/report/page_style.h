// The constant parts of the page of plot.h.
#pragma once

namespace hadal {

extern const char* const kPageStyle;   // CSS
extern const char* const kPageScript;  // JavaScript: tooltips; the page is complete without

}  // namespace hadal
