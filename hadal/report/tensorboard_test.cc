#include "hadal/report/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "hadal/base/file.h"
#include "hadal/error.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(c));
    out += two;
  }
  return out;
}

TEST(Crc32c, AnswersOfRfc3720) {  // appendix B.4
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising(32, '\0'), falling(32, '\0');
  std::iota(rising.begin(), rising.end(), 0);
  std::iota(falling.rbegin(), falling.rend(), 0);
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(crc32c(falling), 0x113fdb5cu);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(Crc32c, MaskRotatesBy15AndAdds) {
  const uint32_t crc = crc32c("foo");
  EXPECT_EQ(masked_crc32c("foo"), ((crc >> 15) | (crc << 17)) + 0xa282ead8u);
}

TEST(TfRecord, FramesLengthDataAndTheirChecksums) {
  const std::string record = tf_record("abc");
  ASSERT_EQ(record.size(), 8u + 4 + 3 + 4);
  EXPECT_EQ(hex(record.substr(0, 8)), "0300000000000000");
  uint32_t of_length, of_data;
  std::memcpy(&of_length, record.data() + 8, 4);
  std::memcpy(&of_data, record.data() + 15, 4);
  EXPECT_EQ(of_length, masked_crc32c(record.substr(0, 8)));
  EXPECT_EQ(record.substr(12, 3), "abc");
  EXPECT_EQ(of_data, masked_crc32c("abc"));
}

TEST(Events, ScalarHasTheWireBytesOfTheMessage) {
  // wall_time = 1.5; step = 300; summary { value { tag: "a/b"; simple_value: 0.25 } }
  EXPECT_EQ(hex(scalar_event(1.5, 300, "a/b", 0.25)),
            "09000000000000f83f"
            "10ac02"
            "2a0c"
            "0a0a"
            "0a03612f62"
            "150000803e");
  EXPECT_EQ(hex(version_event(0)),
            "090000000000000000"
            "1a0d" +
                hex("brain.Event:2"));
  EXPECT_EQ(hex(session_event(0, 7)),
            "090000000000000000"
            "1007"
            "3a02"
            "0801");
}

TEST(Events, LoadHistogramCountsEachExpertOnceRelativeToTheMean) {
  const std::vector<int64_t> load = {0, 10, 10, 20};  // mean 10
  const Histogram h = load_histogram(load);
  EXPECT_EQ(h.num, 4);
  EXPECT_EQ(h.min, 0);
  EXPECT_EQ(h.max, 2);
  EXPECT_EQ(h.sum, 4);
  EXPECT_EQ(h.sum_squares, 6);
  ASSERT_EQ(h.limits.size(), h.counts.size());
  for (size_t i = 0; i < h.limits.size(); ++i)
    EXPECT_EQ(h.counts[i], h.limits[i] == 0   ? 1
                           : h.limits[i] == 1 ? 2
                           : h.limits[i] == 2 ? 1
                                              : 0)
        << h.limits[i];
  EXPECT_EQ(load_histogram(std::vector<int64_t>(8, 0)).counts[0], 8);  // nothing routed yet
  EXPECT_EQ(load_histogram({}).num, 0);
}

TEST(TensorBoardWriter, WritesRecordsThatFrameTheWholeFile) {
  const TemporaryFolder folder;
  TensorBoardWriter writer(folder / "tensorboard", 5);
  TensorBoardWriter second(folder / "tensorboard");
  EXPECT_NE(writer.path(), second.path());
  writer.add(StepRecord{.step = 5, .tokens = 10, .loss = 2, .mtp_loss = {3}, .max_vio = 1});
  writer.add(EvalRecord{.step = 5, .loss = 2, .mtp_acceptance = {.5, .4}});
  writer.add(LoadRecord{5, {{1, {1, 2, 3}}}});
  writer.add(TimingRecord{5, .1, 100, .5});
  const std::string content = read_file(writer.path());
  int records = 0;
  for (size_t at = 0; at < content.size(); ++records) {
    uint64_t length = 0;
    ASSERT_LE(at + 12, content.size());
    std::memcpy(&length, content.data() + at, 8);
    ASSERT_LE(at + 16 + length, content.size());
    EXPECT_EQ(tf_record(content.substr(at + 12, length)), content.substr(at, 16 + length));
    at += 16 + length;
  }
  EXPECT_EQ(records, 2 + 8 + 3 + 1 + 3);
}

TEST(TensorBoardWriter, AFolderThatCannotBeMadeIsNamed) {
  const TemporaryFolder folder;
  write_file(folder / "file", "x");
  try {
    TensorBoardWriter writer(folder / "file/tensorboard");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("file/tensorboard"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace hadal
