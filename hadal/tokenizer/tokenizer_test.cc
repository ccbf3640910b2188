#include "hadal/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

using Ids = std::vector<int32_t>;

const Tokenizer& v3() {
  static const Tokenizer tokenizer = Tokenizer::load(published_tokenizer_file());
  return tokenizer;
}

const Tokenizer& golden() {
  static const Tokenizer tokenizer = Tokenizer::load(golden_tokenizer_file());
  return tokenizer;
}

std::vector<Json> golden_lines(const char* file) {
  std::vector<Json> out;
  std::istringstream lines(read_file(golden_file("tokenizer", file)));
  for (std::string line; std::getline(lines, line);)
    if (!line.empty()) out.push_back(parse_json(line, file));
  EXPECT_FALSE(out.empty());
  return out;
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  IncrementalDecoder decoder(tokenizer, skip_special);
  std::string out;
  for (const int32_t id : ids) {
    const std::string part = decoder.push(id);
    EXPECT_TRUE(is_utf8(part));
    out += part;
  }
  return out + decoder.flush();
}

TEST(Tokenizer, EncodesTheGoldenTextsWithoutADifference) {
  for (const Json& line : golden_lines("encode.jsonl"))
    EXPECT_EQ(golden().encode(line["text"].get<std::string>()), line["ids"].get<Ids>()) << line["text"];
}

TEST(Tokenizer, DecodesTheGoldenIdsWithoutADifference) {
  for (const Json& line : golden_lines("decode.jsonl")) {
    const auto ids = line["ids"].get<Ids>();
    EXPECT_EQ(golden().decode(ids), line["text"].get<std::string>());
    EXPECT_EQ(golden().decode(ids, true), line["text_skip_special"].get<std::string>());
  }
}

TEST(IncrementalDecoder, PartsAreWholeCharactersAndAddUpToDecode) {
  for (const Json& line : golden_lines("decode.jsonl")) {
    const auto ids = line["ids"].get<Ids>();
    EXPECT_EQ(stream(golden(), ids, false), golden().decode(ids));
    EXPECT_EQ(stream(golden(), ids, true), golden().decode(ids, true));
  }
}

TEST(IncrementalDecoder, ACharacterAppearsWithItsLastByteOrAsOneReplacement) {
  const Ids rocket = v3().encode("🚀");
  ASSERT_GT(rocket.size(), 1u);
  IncrementalDecoder decoder(v3());
  for (size_t i = 0; i + 1 < rocket.size(); ++i) EXPECT_EQ(decoder.push(rocket[i]), "");
  EXPECT_EQ(decoder.push(rocket.back()), "🚀");
  decoder.push(rocket[0]);
  EXPECT_EQ(decoder.push(v3().encode("a")[0]),
            "\xEF\xBF\xBD"
            "a");
  decoder.push(rocket[0]);
  EXPECT_EQ(decoder.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.flush(), "");
}

struct Vector {
  const char* text;
  const char* ids;
};

constexpr Vector kPublished[] = {
    // made with the Rust library from the V3 tokenizer
    {"Hello, world!", "19923 14 2058 3"},
    {"Hello! 毕老师！1 + 1 = 2", "19923 3 223 5464 5008 1175 19 940 223 19 438 223 20"},
    {"1234567890", "6895 18009 25744 18"},
    {"a1b22c333d4444", "67 19 68 1302 69 11722 70 18966 22"},
    {"  two  spaces\n\n  indent\n", "223 1234 223 13564 271 223 75577 201"},
    {"x = foo(bar);\r\n\tif (a<=b) {return -1;}",
     "90 438 52735 10 6515 3171 204 201 5733 343 67 17394 68 11 680 3916 565 19 83256"},
    {"日本語カタカナ漢字123", "88768 15961 11767 15961 27071 29069 2024 6895"},
    {"don't I'm we'll", "20385 1664 342 4571 579 5922"},
    {"emoji 🚀👍🏽 end", "18872 7063 7351 251 225 92526 40965 124 1522"},
    {"１２３ Ⅷ ½ ٣", "127167 25081 223 23603 103 223 23951 223 127056"},
    {"\n\n\n", "6328"},
    {"   ", "361"},
    {"a   \n   b", "67 14320 262 291"},
    {"tab\t\tsep", "14278 200 200 88351"},
    {" .foo(bar)", "1204 40897 10 6515 11"},
    {"10,000.50$", "553 14 1320 16 1328 6"},
    {"中文，标点。混合English文本", "21134 303 1701 985 320 14769 17530 18804"},
    {"한국어 텍스트", "5634 17564 9227 61291 238 45652"},
    {"<｜User｜>hi<｜Assistant｜><think>\n", "128803 6366 128804 128798 201"},
    {"a   1", "67 361 19"},
    {"x=12345678 y", "90 31 6895 18009 2597 383"},
    {"e\xCC\x81"
     "a",
     "71 17793 67"},
    {" \xC2\xA0"
     "a",
     "223 2162 67"},
    {"\xE3\x80\x80中", "18524 525"},
};

TEST(Tokenizer, EncodesThePublishedVectors) {
  for (const Vector& vector : kPublished) {
    std::string ids;
    for (const int32_t id : v3().encode(vector.text)) ids += cat(ids.empty() ? "" : " ", id);
    EXPECT_EQ(ids, vector.ids) << vector.text;
  }
}

TEST(Tokenizer, SpecialTextIsPlainTextWhenNotParsed) {
  const std::string text = "<｜User｜>hi<think>";
  EXPECT_EQ(v3().encode(text), (Ids{128803, 6366, 128798}));
  const Ids plain = v3().encode(text, false);
  for (const int32_t id : plain) EXPECT_LT(id, 128000);
  EXPECT_EQ(v3().decode(plain), text);
}

TEST(Tokenizer, InvalidUtf8IsNamedByItsByte) {
  for (const auto& [text, byte] : {std::pair("ab\xFF"
                                             "c",
                                             2),
                                   std::pair("\xED\xA0\x80", 0), std::pair("é\xC3", 2)}) {
    try {
      v3().encode(text);
      FAIL() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(e.what()).find(cat("byte ", byte, " is not UTF-8")), std::string::npos)
          << e.what();
      EXPECT_NE(std::string(e.what()).find("[tokenizer.encode]"), std::string::npos);
    }
  }
}

TEST(Tokenizer, AnIdThatIsNoTokenIsRefused) {
  for (const int32_t id : {-1, 128815, 129279, INT32_MAX}) {
    EXPECT_FALSE(v3().is_token(id));
    try {
      v3().decode(Ids{id});
      FAIL() << id;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(e.what()).find(cat(id, " is not a token id")), std::string::npos);
    }
  }
}

TEST(Tokenizer, FactsAreThoseOfTheFiles) {
  const TokenizerInfo info = v3().info();
  EXPECT_EQ(v3().vocab_size(), 128815);
  EXPECT_EQ(info.num_base_tokens, 128000);
  EXPECT_EQ(info.num_merges, 127741);
  EXPECT_EQ(info.num_added_tokens, 818);
  EXPECT_EQ(info.split_patterns.size(), 3u);
  EXPECT_EQ(info.missing_bytes, 0);
  EXPECT_EQ(info.chat_format, "v3");
  EXPECT_EQ(v3().token_to_id("<｜User｜>"), 128803);
  EXPECT_EQ(v3().token_to_id("Ġworld"), 2058);
  EXPECT_EQ(v3().token_to_id("no such token"), std::nullopt);
  EXPECT_EQ(v3().token(2058), "Ġworld");
  EXPECT_EQ(v3().token_bytes(2058), " world");
  EXPECT_EQ(v3().token(1), "<｜end▁of▁sentence｜>");
  EXPECT_EQ(v3().bos_id(), 0);
  EXPECT_EQ(v3().eos_id(), 1);
  EXPECT_TRUE(v3().is_special(0));
  EXPECT_FALSE(v3().is_special(128803));  // skip_special keeps it
  EXPECT_FALSE(v3().adds_bos());
}

// Random text of everything the patterns tell apart.
std::string mixed_text(uint64_t seed, size_t units) {
  static const char* kUnits[] = {" ",
                                 "  ",
                                 "\n",
                                 "\r\n",
                                 "\t",
                                 "7",
                                 "42",
                                 "a",
                                 "Zed",
                                 "the",
                                 "'s",
                                 "中",
                                 "漢字",
                                 "カナ",
                                 "\xCC\x81",
                                 "é",
                                 "🚀",
                                 "👍🏽",
                                 "\xC2\xA0",
                                 "\xE3\x80\x80",
                                 ".",
                                 "(",
                                 "！",
                                 "½",
                                 "Ⅷ",
                                 "<think>",
                                 "<｜User｜>",
                                 "한",
                                 "\x01",
                                 "\xEF\xBB\xBF",
                                 "\xF4\x8F\xBF\xBF"};
  std::string text;
  for (size_t i = 0; i < units; ++i) text += kUnits[philox(seed, 1, i)[0] % std::size(kUnits)];
  return text;
}

TEST(Tokenizer, DecodeUndoesEncode) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string text = mixed_text(seed, seed % 40);
    EXPECT_EQ(v3().decode(v3().encode(text)), text) << "seed " << seed;
    EXPECT_EQ(v3().decode(v3().encode(text, false)), text) << "seed " << seed;
  }
}

TEST(Tokenizer, ALongTextHasTheIdsOfItsLinesAlone) {  // the cache of pieces changes nothing
  std::string text;
  Ids ids;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::string line = "<think>" + mixed_text(seed, 20);  // an added token cuts before and after
    text += line;
    const Ids part = v3().encode(line);
    ids.insert(ids.end(), part.begin(), part.end());
  }
  EXPECT_EQ(v3().encode(text), ids);
}

TEST(Tokenizer, AHugePieceIsNotQuadratic) {  // n^2 would run for hours
  for (const char* unit : {"a", "!", "\xCC\x81", " ", "ab", "中"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    EXPECT_EQ(v3().decode(v3().encode(text)), text);
  }
}

TEST(Tokenizer, ThreadsShareIt) {
  const std::string text = mixed_text(5, 3000);
  const Ids expected = v3().encode(text);
  std::vector<Ids> got(4);
  std::vector<std::thread> threads;
  for (Ids& ids : got) threads.emplace_back([&] { ids = v3().encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : got) EXPECT_EQ(ids, expected);
}

}  // namespace
}  // namespace hadal
