#include "hadal/server/batch_file.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

std::string line_of(const std::string& custom_id, const std::string& body = "{}") {
  return cat(R"({"custom_id":")", custom_id, R"(","method":"POST","url":"/v1/completions","body":)", body,
             "}");
}

std::string result_of(const std::string& line, int64_t number, int status = 200) {
  return batch_result_line(parse_batch_line(line, number), {.status = status, .body = "{}"});
}

int64_t seed_of(const std::string& custom_id, const std::string& body) {
  return parse_json(parse_batch_line(line_of(custom_id, body), 1).body, "body")["seed"].get<int64_t>();
}

TEST(BatchFile, ARequestWithoutASeedGetsOneOfItsCustomId) {
  EXPECT_EQ(seed_of("a", "{}"), seed_of("a", R"({"seed":null})"));
  EXPECT_NE(seed_of("a", "{}"), seed_of("b", "{}"));
  EXPECT_GE(seed_of("a", "{}"), 0);
  EXPECT_EQ(seed_of("a", R"({"seed":-7})"), -7);
}

TEST(BatchFile, AResultIsKnownByItsLineAndNotByItsPlace) {
  EXPECT_EQ(parse_batch_line(line_of("a"), 1).id, parse_batch_line(line_of("a"), 9).id);
  EXPECT_NE(parse_batch_line(line_of("a"), 1).id, parse_batch_line(line_of("a", R"({"n":2})"), 1).id);
  EXPECT_NE(parse_batch_line("{", 1).id, parse_batch_line("{", 2).id) << "without a name, by its place";
}

TEST(BatchFile, ALineCutAnywhereIsCutOffAndWholeOnesStay) {
  const TemporaryFolder folder;
  const std::string a = line_of("a"), b = line_of("b");
  write_file(folder / "in", a + "\n\n" + b + "\n");
  const BatchInput input(folder / "in");
  const std::string whole = result_of(b, 3, 400), torn = result_of(a, 1);
  for (size_t size = 0; size < torn.size(); ++size) {
    write_file(folder / "out", whole + torn.substr(0, size));
    BatchOutput output(folder / "out", input);
    EXPECT_FALSE(output.has(0)) << size;
    EXPECT_TRUE(output.has(1)) << size;
    EXPECT_EQ(output.failed(), 1);
    output.append(torn);
    EXPECT_EQ(read_file(folder / "out"), whole + torn) << size;
  }
}

TEST(BatchFile, OneProcessWritesAtATime) {
  const TemporaryFolder folder;
  write_file(folder / "in", line_of("a") + "\n");
  const BatchInput input(folder / "in");
  const BatchOutput first(folder / "out", input);
  try {
    const BatchOutput second(folder / "out", input);
    FAIL() << "two at the same time";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_NE(std::string(error.what()).find("another process"), std::string::npos) << error.what();
  }
}

TEST(BatchFile, ALastLineWithoutALineBreakIsARequest) {
  const TemporaryFolder folder;
  write_file(folder / "in", line_of("a") + "\r\n" + line_of("b"));
  BatchInput input(folder / "in");
  ASSERT_EQ(input.size(), 2u);
  EXPECT_EQ(input.read(1).custom_id, "b");
  EXPECT_EQ(input.read(0).custom_id, "a");
  EXPECT_EQ(input.read(0).problem, "");
}

}  // namespace
}  // namespace hadal
