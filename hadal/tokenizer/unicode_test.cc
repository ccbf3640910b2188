#include "hadal/tokenizer/unicode.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

const std::string kBad = "\xEF\xBF\xBD";

std::string lossy(std::string_view bytes, size_t open = 0) {
  std::string out;
  EXPECT_EQ(append_lossy_utf8(out, bytes), open) << bytes;
  return out;
}

TEST(Unicode, OneReplacementPerMaximalInvalidPart) {
  EXPECT_EQ(lossy("aé中🚀"), "aé中🚀");
  EXPECT_EQ(lossy("\x80\x80z"), kBad + kBad + "z");
  EXPECT_EQ(lossy("\xE4\xB8z"), kBad + "z");  // the two bytes could have begun a character
  EXPECT_EQ(lossy("\xF0\x9F\x9Az"), kBad + "z");
  EXPECT_EQ(lossy("\xC0\xAFz"), kBad + kBad + "z");             // overlong: not even a beginning
  EXPECT_EQ(lossy("\xED\xA0\x80z"), kBad + kBad + kBad + "z");  // surrogate
  EXPECT_EQ(lossy("\xF4\x90z"), kBad + kBad + "z");             // above U+10FFFF
}

TEST(Unicode, AnOpenEndIsHeldBack) {
  EXPECT_EQ(lossy("a\xE4", 1), "a");
  EXPECT_EQ(lossy("a\xF0\x9F\x9A", 3), "a");
  EXPECT_EQ(lossy("a\xE4\xB8\xAD"), "a中");
  EXPECT_EQ(lossy("a\xFF"), "a" + kBad);  // nothing can follow
}

TEST(Unicode, KindsAreThoseOfUnicode16) {
  EXPECT_EQ(char_kind('A'), CharKind::kLu);
  EXPECT_EQ(char_kind(0x4E2D), CharKind::kLo);
  EXPECT_EQ(char_kind(0x1C89), CharKind::kLu);  // new in 16.0
  EXPECT_EQ(char_kind(0x378), CharKind::kCn);
  EXPECT_EQ(char_kind(0x10FFFF), CharKind::kCn);
  EXPECT_EQ(char_kind('\n'), CharKind::kCcSpace);
  EXPECT_EQ(char_kind(0), CharKind::kCc);
  EXPECT_EQ(kinds_of_category("L"), KindMask{0x1F});
  EXPECT_EQ(kinds_of_category("Greek"), std::nullopt);
}

TEST(Unicode, CharactersSurviveEncodingAndDecoding) {
  for (uint32_t code = 0; code < 0x110000; code += code < 0x10000 ? 1 : 97) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text = "x";
    append_utf8(text, code);
    EXPECT_EQ(utf8_at(text, 1).code, code);
    EXPECT_EQ(utf8_before(text, text.size()), 1u);
  }
}

}  // namespace
}  // namespace hadal
