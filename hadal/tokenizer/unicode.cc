#include "hadal/tokenizer/unicode.h"

#include <algorithm>
#include <iterator>
#include <memory>

#include "hadal/tokenizer/unicode_table.h"

namespace hadal {
namespace {

constexpr uint32_t kCodes = 0x110000;

// One byte per code point, spread out of the runs at first use (about 0.2 ms).
struct KindTable {
  std::unique_ptr<uint8_t[]> kind{new uint8_t[kCodes]};
  KindTable() {
    for (size_t i = 0; i < std::size(kCharKindRuns); ++i) {
      const uint32_t first = kCharKindRuns[i] >> 6;
      const uint32_t end = i + 1 < std::size(kCharKindRuns) ? kCharKindRuns[i + 1] >> 6 : kCodes;
      std::fill(kind.get() + first, kind.get() + end, static_cast<uint8_t>(kCharKindRuns[i] & 63));
    }
  }
};

// Length of the valid character at bytes[at], or 0 with *bad = length of the maximal invalid part, *open =
// the text ends inside it (Unicode standard, table 3-7 and "maximal subparts").
size_t valid_length(std::string_view bytes, size_t at, size_t* bad, bool* open) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(bytes[at + k]); };
  const unsigned char lead = byte(0);
  *open = false;
  *bad = 1;
  if (lead < 0x80) return 1;
  const size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0) return 0;
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t k = 1; k < length; ++k) {
    *bad = k;
    if (at + k == bytes.size()) {
      *open = true;
      return 0;
    }
    if (byte(k) < (k == 1 ? low : 0x80) || byte(k) > (k == 1 ? high : 0xBF)) return 0;
  }
  return length;
}

}  // namespace

CharKind char_kind(uint32_t code) {
  static const KindTable table;
  return static_cast<CharKind>(table.kind[code]);
}

std::optional<KindMask> kinds_of_category(std::string_view name) {
  static constexpr std::string_view kNames =
      "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn ";
  KindMask mask = 0;
  for (size_t i = 0; i * 3 < kNames.size(); ++i) {
    const std::string_view category = kNames.substr(i * 3, 2);
    if (category == name || (name.size() == 1 && category[0] == name[0])) mask |= KindMask{1} << i;
  }
  if (mask == 0) return std::nullopt;
  if (mask & bit(CharKind::kCc)) mask |= bit(CharKind::kCcSpace);
  if (mask & bit(CharKind::kSo)) mask |= bit(CharKind::kSoWord);
  if (mask & bit(CharKind::kNo)) mask |= bit(CharKind::kNoWord);
  return mask;
}

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

size_t append_lossy_utf8(std::string& out, std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    size_t bad = 0;
    bool open = false;
    if (const size_t length = valid_length(bytes, at, &bad, &open)) {
      out.append(bytes.substr(at, length));
      at += length;
      continue;
    }
    if (open) return bytes.size() - at;
    out += "\xEF\xBF\xBD";
    at += bad;
  }
  return 0;
}

}  // namespace hadal
