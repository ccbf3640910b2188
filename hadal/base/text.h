// Small text tools: joining values, nearest name for "did you mean", human sizes.
#pragma once
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// cat("[x] ", 3, " of ", n): everything streamed into one string.
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// "[160, 5120]"
std::string shape_text(const std::vector<int64_t>& shape);

// The candidate nearest to `name` by edit distance, or "" if none is near (more than a third of it wrong).
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

// " (did you mean \"x\"?)" or "".
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

// 31_104 -> "31,104"
std::string with_commas(int64_t value);

// 1536 -> "1.5 KiB"
std::string human_bytes(int64_t bytes);

// RFC 4648, with padding.
std::string base64(std::string_view bytes);

// True if `text` is well-formed UTF-8 (no overlong forms, surrogates or values above U+10FFFF).
// On failure *bad_byte (if given) is the offset of the first bad byte.
bool is_utf8(std::string_view text, size_t* bad_byte = nullptr);

}  // namespace hadal
