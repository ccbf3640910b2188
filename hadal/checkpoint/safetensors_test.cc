#include "hadal/checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iostream>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

// A file made of a header text and `data_size` zero bytes.
std::string raw_file(const std::string& header, size_t data_size) {
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[static_cast<size_t>(i)] = static_cast<char>(header.size() >> (8 * i));
  return out + header + std::string(data_size, '\0');
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& range) {
  return R"({"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + range + "}";
}

class Malformed : public ::testing::Test {
 protected:
  // Writes `content` and returns what opening it says; checks what must hold for every error.
  std::string problem(const std::string& content) {
    ++count_;
    const auto path = folder_ / "model.safetensors";
    std::filesystem::remove(path);  // truncating an old file would make some file systems flush it
    std::ofstream(path, std::ios::binary) << content;
    const CheckpointReport report = inspect(path);
    try {
      SafetensorsFile file(path);
    } catch (const Error& e) {
      const std::string text = e.what();
      EXPECT_EQ(e.code(), ErrorCode::kCorrupt) << text;
      EXPECT_EQ(exit_code(e.code()), 3);
      EXPECT_EQ(text.find("[checkpoint.open] " + path.string() + ": byte "), 0u) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
      EXPECT_FALSE(report.problems.empty()) << text;
      return text;
    }
    EXPECT_TRUE(report.problems.empty()) << report.problems.front();
    return "no error";
  }
  void expect(const std::string& content, const std::string& part) {
    const std::string text = problem(content);
    EXPECT_NE(text.find(part), std::string::npos) << "want: " << part << "\ngot:  " << text;
  }
  ~Malformed() override { std::cout << count_ << " files opened\n"; }

  TemporaryFolder folder_;
  int count_ = 0;
};

const std::string kSound =
    raw_file(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
             R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})",
             32);

TEST_F(Malformed, AFileCutAtAnyByteIsRefusedWithTheReason) {
  ASSERT_EQ(problem(kSound), "no error");
  const size_t header_end = kSound.size() - 32;
  for (size_t size = 0; size < kSound.size(); ++size) {
    expect(kSound.substr(0, size),
           size < 8            ? "ends inside the 8-byte header length: got " + std::to_string(size)
           : size < header_end ? "but only " + std::to_string(size - 8) + " bytes follow"
                               : "but the file at byte " + std::to_string(size));
  }
}

TEST_F(Malformed, AHeaderLengthThatLiesIsRefused) {
  std::string file = kSound;
  for (const auto& [value, part] :
       std::vector<std::pair<uint64_t, std::string>>{{0, "must begin with '{'"},
                                                     {1, "(in the header)"},
                                                     {kSound.size() - 8 + 1, "bytes follow"},
                                                     {100'000'000, "bytes follow"},
                                                     {100'000'001, "above the format's limit"},
                                                     {uint64_t{1} << 63, "above the format's limit"},
                                                     {~uint64_t{0}, "above the format's limit"},
                                                     {kSound.size() - 8 - 32 - 1, "(in the header)"},
                                                     {kSound.size() - 8 - 32 + 1, "(in the header)"},
                                                     {kSound.size() - 8, "(in the header)"}}) {
    for (int i = 0; i < 8; ++i) file[static_cast<size_t>(i)] = static_cast<char>(value >> (8 * i));
    expect(file, part);
  }
}

TEST_F(Malformed, AHeaderThatIsNoStrictJsonIsRefusedAtItsByte) {
  expect(raw_file("", 0), "byte 8: the header must begin with '{'");
  expect(raw_file(" {}", 0), "must begin with '{'");
  expect(raw_file("[]", 0), "must begin with '{'");
  expect(raw_file("{", 0), "(in the header)");
  expect(raw_file("{} x", 0), "byte 11");
  expect(raw_file("{}{}", 0), "byte 10");
  expect(raw_file("{\"a\":}", 0), "byte 13");
  expect(raw_file("{'a':1}", 0), "byte 9");
  expect(raw_file("{\"a\":1,}", 0), "(in the header)");
  expect(raw_file("{\"a\":NaN}", 0), "(in the header)");
  expect(raw_file("{\"\xFF\":1}", 0), "byte 10: invalid UTF-8");
  expect(raw_file("{\"a\":1,\"a\":2}", 0), "duplicate key \"a\"");
  expect(raw_file(std::string("{\"a\0\":1}", 8), 0), "(in the header)");
  expect(raw_file("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}", 0), "deeper than 64");
  expect(raw_file("{\"a\":99999999999999999999}", 0), "does not fit in 64 signed bits");
  expect(raw_file("{\"a\":" + entry("\"F32\"", "[1]", "[0,4]") +
                      ",\"a\":" + entry("\"F32\"", "[1]", "[0,4]") + "}",
                  4),
         "duplicate key \"a\"");
  EXPECT_EQ(problem(raw_file("{}", 0)), "no error");
  EXPECT_EQ(problem(raw_file("{}      ", 0)), "no error");
}

TEST_F(Malformed, EveryBadFieldOfATensorIsNamed) {
  struct Case {
    std::string tensor, part;
  };
  const std::string good = "\"F32\"";
  const Case cases[] = {
      {"1", "tensor w: got 1, need an object"},
      {"null", "need an object"},
      {"[]", "need an object"},
      {"\"F32\"", "need an object"},
      {"{}", "tensor w: dtype is missing"},
      {R"({"dtype":"F32"})", "shape is missing"},
      {R"({"dtype":"F32","shape":[2]})", "data_offsets is missing"},
      {R"({"shape":[2],"data_offsets":[0,8]})", "dtype is missing"},
      {R"({"dtype":"F32","data_offsets":[0,8]})", "shape is missing"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]})", "unknown field strides"},
      {R"({"dtype":"F32","shpe":[2],"data_offsets":[0,8]})", "unknown field shpe (did you mean \"shape\"?)"},
      {entry("3", "[2]", "[0,8]"), "dtype is 3, need a string"},
      {entry("null", "[2]", "[0,8]"), "dtype is null"},
      {entry("\"f32\"", "[2]", "[0,8]"), "dtype f32 is unknown"},
      {entry("\"BF61\"", "[2]", "[0,8]"), "dtype BF61 is unknown"},
      {entry("\"F8_E4M3FN\"", "[8]", "[0,8]"), "dtype F8_E4M3FN is unknown (did you mean \"F8_E4M3\"?)"},
      {entry("\"F4\"", "[16]", "[0,8]"), "dtype F4 is unknown"},
      {entry("\"C64\"", "[1]", "[0,8]"), "dtype C64 is unknown"},
      {entry("\"\"", "[2]", "[0,8]"), "dtype  is unknown"},
      {entry(good, "2", "[0,8]"), "shape is 2, need a list"},
      {entry(good, "null", "[0,8]"), "shape is null"},
      {entry(good, "{}", "[0,8]"), "shape is {}"},
      {entry(good, "[-2]", "[0,8]"), "shape has -2, need non-negative integers"},
      {entry(good, "[2.0]", "[0,8]"), "shape has 2.0"},
      {entry(good, "[\"2\"]", "[0,8]"), "shape has \"2\""},
      {entry(good, "[null]", "[0,8]"), "shape has null"},
      {entry(good, "[[2]]", "[0,8]"), "shape has [2]"},
      {entry(good, "[true,2]", "[0,8]"), "shape has true"},
      {entry(good, "[4611686018427387904,4]", "[0,8]"), "does not fit in 64 bits"},
      {entry(good, "[9223372036854775807,9223372036854775807]", "[0,8]"), "does not fit in 64 bits"},
      {entry(good, "[9223372036854775807]", "[0,8]"), "does not fit in 64 bits"},
      {entry(good, "[9223372036854775808]", "[0,8]"), "does not fit in 64 signed bits"},
      {entry(good, "[3]", "[0,8]"), "F32 [3] needs 12 bytes, data_offsets give 8"},
      {entry(good, "[1]", "[0,8]"), "F32 [1] needs 4 bytes"},
      {entry(good, "[]", "[0,8]"), "F32 [] needs 4 bytes"},
      {entry(good, "[0]", "[0,8]"), "F32 [0] needs 0 bytes"},
      {entry("\"BF16\"", "[2]", "[0,8]"), "BF16 [2] needs 4 bytes"},
      {entry("\"I64\"", "[2]", "[0,8]"), "I64 [2] needs 16 bytes"},
      {entry(good, "[2]", "null"), "data_offsets is null, need [begin, end]"},
      {entry(good, "[2]", "8"), "data_offsets is 8"},
      {entry(good, "[2]", "[]"), "data_offsets is []"},
      {entry(good, "[2]", "[0]"), "data_offsets is [0]"},
      {entry(good, "[2]", "[0,8,16]"), "data_offsets is [0,8,16]"},
      {entry(good, "[2]", "[0,\"8\"]"), "data_offsets has \"8\""},
      {entry(good, "[2]", "[0,8.0]"), "data_offsets has 8.0"},
      {entry(good, "[2]", "[-8,0]"), "data_offsets has -8"},
      {entry(good, "[2]", "[0,-1]"), "data_offsets has -1"},
      {entry(good, "[2]", "[8,0]"), "begin 8 after their end 0"},
      {entry(good, "[2]", "[8,16]"), "but the file at byte"},
      {entry(good, "[2]", "[0,9223372036854775807]"), "but the file at byte"},
      {entry(good, "[2]", "[9223372036854775799,9223372036854775807]"), "but the file at byte"},
      {entry(good, "[1]", "[0,4]"), "4 bytes follow the last tensor"},
      {entry(good, "[1]", "[4,8]"), "hole of 4 bytes before tensor w"},
      {entry(good, "[0]", "[0,0]"), "8 bytes follow the last tensor"},
  };
  for (const Case& c : cases) expect(raw_file("{\"w\":" + c.tensor + "}", 8), c.part);
  EXPECT_EQ(problem(raw_file("{\"w\":" + entry(good, "[2]", "[0,8]") + "}", 8)), "no error");
  EXPECT_EQ(problem(raw_file("{\"w\":" + entry(good, "[]", "[0,4]") + "}", 4)), "no error");
  EXPECT_EQ(problem(raw_file("{\"w\":" + entry(good, "[9223372036854775807,9,0]", "[0,0]") + "}", 0)),
            "no error");
}

TEST_F(Malformed, OverlapsHolesAndTrailingBytesAreRefused) {
  const auto two = [](const std::string& a, const std::string& b, size_t size) {
    return raw_file("{\"a\":" + entry("\"U8\"", "[4]", a) + ",\"b\":" + entry("\"U8\"", "[4]", b) + "}",
                    size);
  };
  EXPECT_EQ(problem(two("[0,4]", "[4,8]", 8)), "no error");
  EXPECT_EQ(problem(two("[4,8]", "[0,4]", 8)), "no error");
  expect(two("[0,4]", "[0,4]", 4), "tensor b overlaps a, which ends at byte");
  expect(two("[0,4]", "[3,7]", 7), "tensor b overlaps a");
  expect(two("[3,7]", "[0,4]", 7), "tensor a overlaps b");
  expect(two("[0,4]", "[5,9]", 9), "hole of 1 bytes before tensor b");
  expect(two("[1,5]", "[5,9]", 9), "hole of 1 bytes before tensor a");
  expect(two("[0,4]", "[4,8]", 9), "1 bytes follow the last tensor");
  expect(two("[0,4]", "[4,8]", 7), "tensor b: data ends at byte");
  expect(raw_file("{}", 1), "1 bytes follow the last tensor");
}

TEST_F(Malformed, MetadataHoldsStringsOnly) {
  for (const char* value : {"1", "null", "[]", "\"x\""})
    expect(raw_file(cat("{\"__metadata__\":", value, "}"), 0), "__metadata__ is " + std::string(value));
  for (const char* value : {"1", "null", "[]", "{}", "true", "1.5"})
    expect(raw_file(cat("{\"__metadata__\":{\"k\":", value, "}}"), 0),
           "__metadata__ field k is " + std::string(value));
}

TEST_F(Malformed, NoFlippedHeaderByteGoesUnnoticedOrCrashes) {
  const size_t header_end = kSound.size() - 32;
  int refused = 0;
  for (size_t i = 0; i < header_end; ++i) {
    for (const char c : {'\0', '\xFF', '"', '9', '}', ' '}) {
      if (kSound[i] == c) continue;
      std::string file = kSound;
      file[i] = c;
      refused += problem(file) != "no error";
    }
  }
  EXPECT_GT(refused, static_cast<int>(header_end * 4));  // the rest renames a tensor or changes metadata
}

TEST(Safetensors, WrittenFilesReadBackInAlignedDeterministicOrder) {
  TemporaryFolder folder;
  const std::vector<TensorHead> heads = {
      {"b", ElementType::kU8, {3}},          {"scalar", ElementType::kF32, {}},
      {"empty", ElementType::kBF16, {0, 7}}, {"\"q\\ \xC3\xA9", ElementType::kBF16, {2}},
      {"wide", ElementType::kI64, {2}},      {"odd rows", ElementType::kU8, {3, 65}},
      {"lines", ElementType::kU8, {2, 64}}};
  for (const char* file : {"1", "2"}) {
    SafetensorsWriter writer(folder / file, heads, {{"k", "v"}});
    EXPECT_EQ(writer.heads()[1].name, "lines");  // after the empty one, which is a multiple of 64 bytes too
    EXPECT_EQ(writer.heads()[2].name, "wide");
    char next = 0;
    for (const TensorHead& head : writer.heads())
      for (int64_t i = 0; i < head.num_bytes(); ++i, ++next) writer.write(&next, 1);
    EXPECT_FALSE(std::filesystem::exists(folder / file));
    writer.finish();
  }
  EXPECT_EQ(read_file(folder / "1"), read_file(folder / "2"));
  const SafetensorsFile file(folder / "1");
  EXPECT_EQ(file.metadata().at("k"), "v");
  EXPECT_EQ(file.tensors().size(), heads.size());
  for (const TensorHead& head : heads) {
    const StoredTensor& t = file.at(head.name);
    EXPECT_EQ(t.type, head.type);
    EXPECT_EQ(t.shape, head.shape);
    EXPECT_EQ(static_cast<int64_t>(t.bytes.size()), head.num_bytes());
    EXPECT_EQ(t.file_offset % static_cast<uint64_t>(size_bytes(t.type)), 0u) << t.name;
    EXPECT_TRUE(head.num_bytes() % 64 != 0 || t.file_offset % 64 == 0) << t.name;
  }
  EXPECT_EQ(std::to_integer<int>(file.at("b").bytes[2]), (128 + 16 + 4 + 4 + 2) % 256);
}

TEST(Safetensors, AWriterThatIsNotFinishedLeavesNothing) {
  TemporaryFolder folder;
  {
    SafetensorsWriter writer(folder / "x", {{"a", ElementType::kF32, {2}}});
    const float one = 1;
    writer.write(&one, sizeof one);
    EXPECT_THROW(writer.finish(), Error);  // 4 bytes are missing
    EXPECT_THROW(writer.write("123456789", 9), Error);
  }
  EXPECT_TRUE(folder.entries().empty());
  EXPECT_THROW(SafetensorsWriter(folder / "x", {{"a", ElementType::kU8, {1}}, {"a", ElementType::kU8, {1}}}),
               Error);
  EXPECT_TRUE(folder.entries().empty());
}

TEST(Safetensors, AMissingTensorGetsTheNearestName) {
  const SafetensorsFile file(golden_file("v3-tiny", "model.safetensors"));
  try {
    file.at("model.norm.wieght");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(e.what()).find("did you mean \"model.norm.weight\""), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace hadal
