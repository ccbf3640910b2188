#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "hadal/base/check.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "tests/support/error_of.h"

namespace hadal {
namespace {

std::string json_problem(std::string_view text) {
  return error_of([&] { parse_json(text, "x.json"); });
}

TEST(Json, KeyOrderSurvivesARoundTrip) {
  EXPECT_EQ(dump_json(parse_json(R"({"b":1,"a":[true,null,-2.5]})", "x")), R"({"b":1,"a":[true,null,-2.5]})");
}

TEST(Json, BadInputIsNamedWithItsPlace) {
  EXPECT_NE(json_problem(R"({"a":1,"a":2})").find("duplicate key \"a\""), std::string::npos);
  EXPECT_NE(json_problem("18446744073709551615").find("does not fit"), std::string::npos);
  EXPECT_NE(json_problem("99999999999999999999999").find("does not fit"), std::string::npos);
  EXPECT_NE(json_problem("1e999").find("number overflow"), std::string::npos);
  EXPECT_NE(json_problem(std::string(65, '[') + std::string(65, ']')).find("deeper than 64"),
            std::string::npos);
  EXPECT_NE(json_problem("\"\xff\"").find("byte 1: invalid UTF-8"), std::string::npos);
  EXPECT_NE(json_problem("{} x").find("byte 3"), std::string::npos);
  EXPECT_NE(json_problem(std::string_view("{}\0", 3)).find("byte 2: NUL byte"), std::string::npos);
  EXPECT_NE(json_problem("").find("x.json"), std::string::npos);
}

TEST(Json, DuplicatesAreFoundInObjectsOfAnySize) {
  for (int size = 1; size < 40; ++size) {
    for (const int again : {0, size / 2, size - 1}) {
      std::string text = "{";
      for (int i = 0; i < size; ++i) text += cat("\"k", i, "\":", i, ",");
      EXPECT_NE(json_problem(text + cat("\"k", again, "\":1}")).find("duplicate key"), std::string::npos)
          << text;
      const Json sound = parse_json(text + "\"other\":{\"k0\":1}}", "x");
      EXPECT_EQ(sound.size(), static_cast<size_t>(size + 1));
      EXPECT_EQ(sound["k0"], 0);
    }
  }
}

TEST(Text, NearestNameFindsATypoAndRefusesAStranger) {
  EXPECT_EQ(nearest_name("--temprature", {"--temperature", "--top-p"}), "--temperature");
  EXPECT_EQ(nearest_name("rnu", {"train", "run"}), "run");  // neighbours swapped
  EXPECT_EQ(nearest_name("zebra", {"--temperature", "--top-p"}), "");
}

TEST(Text, Utf8RefusesOverlongSurrogatesAndTruncation) {
  size_t bad = 9;
  EXPECT_TRUE(is_utf8("a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x9A\x80"));
  for (const char* text :
       {"\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE4\xB8", "\x80"}) {
    EXPECT_FALSE(is_utf8(text, &bad)) << text;
    EXPECT_EQ(bad, 0u);
  }
}

TEST(Text, NumbersGetCommas) {
  EXPECT_EQ(with_commas(671026419200), "671,026,419,200");
  EXPECT_EQ(with_commas(-1234), "-1,234");
  EXPECT_EQ(with_commas(123), "123");
}

TEST(AtomicFile, UncommittedWriteLeavesTheOldContentAndNoDebris) {
  const auto folder = std::filesystem::temp_directory_path() / cat("hadal_base_test_", ::getpid());
  std::filesystem::create_directories(folder);
  write_file(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("half");
  }
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  std::filesystem::remove_all(folder);
}

TEST(File, MissingFileIsNotFoundAndNamed) {
  try {
    read_file("/no/such/file");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(e.what()).find("/no/such/file"), std::string::npos);
  }
}

TEST(Check, FailureCarriesExpressionAndValues) {
  try {
    HADAL_CHECK(1 == 2) << "one is " << 1;
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInternal);
    EXPECT_NE(std::string(e.what()).find("1 == 2 one is 1"), std::string::npos);
  }
}

// Known-answer vectors published with Random123 (kat_vectors, philox4x32 10 rounds).
TEST(Random, PhiloxGivesThePublishedVectors) {
  EXPECT_EQ(philox(0, 0, 0), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Random, NormalHasMeanZeroAndVarianceOne) {
  double sum = 0, squares = 0;
  const int n = 100'000;
  for (int i = 0; i < n; ++i) {
    const double x = normal(7, stream_id("w"), i);
    sum += x, squares += x * x;
  }
  EXPECT_LT(std::abs(sum / n), 5 / std::sqrt(n));  // five standard errors
  EXPECT_LT(std::abs(squares / n - 1), 5 * std::sqrt(2.0 / n));
}

}  // namespace
}  // namespace hadal
