// What kind of character a code point is, and UTF-8 by hand: the base of the split patterns.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hadal {

// General categories, and three that split one to keep \s and \w apart from it.
enum class CharKind : uint8_t {
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,  //
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCs,
  kCo,
  kCn,       //
  kCcSpace,  // TAB to CR, NEL
  kSoWord,   // circled letters
  kNoWord,   // superscripts and fractions of Latin-1
};

using KindMask = uint64_t;  // bit k: CharKind k

constexpr KindMask kAllKinds = (KindMask{1} << 33) - 1;
constexpr KindMask bit(CharKind kind) {
  return KindMask{1} << static_cast<int>(kind);
}

// The kinds of \s, \w, \d.
constexpr KindMask kSpaceKinds =
    bit(CharKind::kZs) | bit(CharKind::kZl) | bit(CharKind::kZp) | bit(CharKind::kCcSpace);
constexpr KindMask kWordKinds = 0xFF | bit(CharKind::kNd) | bit(CharKind::kNl) | bit(CharKind::kPc) |
                                bit(CharKind::kSoWord) | bit(CharKind::kNoWord);  // 0xFF: L and M
constexpr KindMask kDigitKinds = bit(CharKind::kNd);

// Kinds of a category name of \p{...}: "L", "Lu", ...; nothing if hadal does not know the name.
std::optional<KindMask> kinds_of_category(std::string_view name);

// REQUIRES: code < 0x110000. A table look-up.
CharKind char_kind(uint32_t code);

// Decodes the character at text[at]. REQUIRES: text is UTF-8, at < size, at is a boundary.
struct Utf8Char {
  uint32_t code;
  uint32_t length;
};
inline Utf8Char utf8_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t k) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at + k])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

// Start of the character before text[at]. REQUIRES: at > 0.
inline size_t utf8_before(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

void append_utf8(std::string& out, uint32_t code);

// Appends the valid part of `bytes` with each maximal invalid part as U+FFFD. Returns how many bytes at the
// end are the start of a character that may still become whole (0 to 3); those are not appended.
size_t append_lossy_utf8(std::string& out, std::string_view bytes);

}  // namespace hadal
