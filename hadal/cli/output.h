// stdout for data: errors are noticed, a reader that has gone is not one.
#pragma once
#include <string>
#include <string_view>

namespace hadal {

// Thrown when the reader of stdout has closed it (`hadal ... | head`): the program ends quietly with 0.
struct ReaderGone {};

// Appends to stdout. Throws exhausted or unavailable (full disk), ReaderGone.
void print(std::string_view text);

// Hands over what is buffered; for streamed text, and by hadal_main at the end. Throws as print().
void flush_output();

// `text` for one line of a terminal: control characters as '?', line breaks as blanks.
std::string one_line(std::string_view text);

}  // namespace hadal
