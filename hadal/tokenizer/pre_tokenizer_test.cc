#include "hadal/tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/tokenizer/tokenizer_model.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

using Pieces = std::vector<std::string>;

Pieces cut(const PreTokenizer& pre, std::string_view text) {
  Pieces out;
  for (const Piece& piece : pre.pieces(text))
    out.emplace_back(text.substr(piece.begin, piece.end - piece.begin));
  return out;
}

const PreTokenizer& v3() {
  static const TokenizerModel model = [] {
    TokenizerModel read;
    read_tokenizer_json(read_file(published_tokenizer_file()), "tokenizer.json", read);
    return read;
  }();
  return model.pre_tokenizer;
}

TEST(PreTokenizer, V3CutsAsThePublishedVectors) {
  EXPECT_EQ(cut(v3(), "a   1"),
            (Pieces{"a", "   ", "1"}));  // numbers are cut first, so the run keeps its last space
  EXPECT_EQ(cut(v3(), "a   b"), (Pieces{"a", "  ", " b"}));
  EXPECT_EQ(cut(v3(), "x=12345678 y"), (Pieces{"x", "=", "123", "456", "78", " y"}));
  EXPECT_EQ(cut(v3(), "don't stop"), (Pieces{"don", "'t", " stop"}));
  EXPECT_EQ(cut(v3(), "foo_bar(baz)\n\n  y"), (Pieces{"foo", "_bar", "(baz", ")\n\n", " ", " y"}));
  EXPECT_EQ(cut(v3(), "  \n  a"), (Pieces{"  \n", " ", " a"}));
  EXPECT_EQ(cut(v3(), "a.b,c"), (Pieces{"a", ".b", ",c"}));
  EXPECT_EQ(cut(v3(),
                "e\xCC\x81"
                "a"),
            (Pieces{"e\xCC\x81"
                    "a"}));  // no normalization
  EXPECT_EQ(cut(v3(),
                " \xC2\xA0"
                "a"),
            (Pieces{" ",
                    "\xC2\xA0"
                    "a"}));
  EXPECT_EQ(cut(v3(), "\xE3\x80\x80中"), (Pieces{"\xE3\x80\x80", "中"}));
}

// Cased letters of the V2 pattern, in hexadecimal.
constexpr const char* kV2Letters =
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376-377 37B-37D 37F 386 388-38A 38C "
    "38E-3A1 "
    "3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 "
    "1D79-1D9A "
    "1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE "
    "1FC2-1FC4 "
    "1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 "
    "2126 2128 "
    "212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183-2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2-2CF3 "
    "A640-A66D "
    "A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F "
    "104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943";

std::string letter_class() {
  std::string out = "[";
  std::istringstream ranges(kV2Letters);
  for (std::string range; ranges >> range;) {
    const size_t dash = range.find('-');
    out += cat("\\x{", range.substr(0, dash), "}");
    if (dash != std::string::npos) out += cat("-\\x{", range.substr(dash + 1), "}");
  }
  return out + "]";
}

PreTokenizer v2() {
  PreTokenizer pre;
  for (const std::string& pattern :
       {std::string("[\r\n]"), "\\s?" + letter_class() + "+",
        std::string(R"(\s?[!-/:-~！-／：-～‘-‟\x{3000}-。]+)"), std::string(R"(\s+$)"),
        std::string(R"([一-龥\x{0800}-一가-\x{D7FF}]+)"), std::string(kDigitsPattern)})
    pre.splits.push_back({Regex::compile(pattern, "v2")});
  return pre;
}

TEST(PreTokenizer, V2CutsAsHfTokenizers) {  // expected: HF tokenizers 0.23 with the same patterns
  const PreTokenizer pre = v2();
  EXPECT_EQ(cut(pre, "ied 4 ½ months"), (Pieces{"ied", " ", "4", " ", "½", " months"}));
  EXPECT_EQ(cut(pre, "  Hello  world  "), (Pieces{" ", " Hello", " ", " world", "  "}));
  EXPECT_EQ(cut(pre, "\n\n\n"), (Pieces{"\n", "\n", "\n"}));
  EXPECT_EQ(cut(pre, "\t\n"), (Pieces{"\t", "\n"}));
  EXPECT_EQ(cut(pre, "w048 7tuijk dsdfhu"), (Pieces{"w", "0", "4", "8", " ", "7", "tuijk", " dsdfhu"}));
  EXPECT_EQ(cut(pre, "Äpfel (rot)!"), (Pieces{"Ä", "pfel", " (", "rot", ")!"}));  // rule 3 holds a to z
  EXPECT_EQ(cut(pre, "日本語カタカナ 漢字"), (Pieces{"日本語カタカナ", " ", "漢字"}));
  EXPECT_EQ(cut(pre, "a   \nb"), (Pieces{"a", "   ", "\n", "b"}));
  EXPECT_EQ(cut(pre, "don't stop"), (Pieces{"don", "'", "t", " stop"}));
  EXPECT_EQ(cut(pre, "ՠxյ"), (Pieces{"ՠ", "x", "յ"}));  // Armenian small letters are not in the list
}

Pieces behave(SplitBehavior behavior, bool invert) {
  PreTokenizer pre;
  pre.splits.push_back({Regex::compile(R"(\d)", "test"), behavior, invert});
  return cut(pre, "a12b3");
}

TEST(PreTokenizer, BehavioursPlaceTheMatchAsHfDoes) {  // expected: HF tokenizers 0.23
  EXPECT_EQ(behave(SplitBehavior::kIsolated, false), (Pieces{"a", "1", "2", "b", "3"}));
  EXPECT_EQ(behave(SplitBehavior::kRemoved, false), (Pieces{"a", "b"}));
  EXPECT_EQ(behave(SplitBehavior::kRemoved, true), (Pieces{"1", "2", "3"}));
  EXPECT_EQ(behave(SplitBehavior::kMergedWithPrevious, false), (Pieces{"a1", "2", "b3"}));
  EXPECT_EQ(behave(SplitBehavior::kMergedWithPrevious, true), (Pieces{"a", "1", "2b", "3"}));
  EXPECT_EQ(behave(SplitBehavior::kMergedWithNext, false), (Pieces{"a", "1", "2b", "3"}));
  EXPECT_EQ(behave(SplitBehavior::kMergedWithNext, true), (Pieces{"a1", "2", "b3"}));
  EXPECT_EQ(behave(SplitBehavior::kContiguous, false), (Pieces{"a", "12", "b", "3"}));
}

TEST(PreTokenizer, HostileTextCostsLinearWork) {
  const PreTokenizer old = v2();
  for (const PreTokenizer* pre : {&v3(), &old}) {
    for (const char* unit :
         {" ", "a", "!", "\xCC\x81", "1", "中", "\n", " \n", "a ", "! ", "\xF0\x9F\x9A\x80"}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      uint64_t steps = 0;
      pre->pieces(text, &steps);
      EXPECT_LT(steps, 100 * text.size()) << unit;
    }
  }
}

}  // namespace
}  // namespace hadal
