#include "hadal/data/token_file.h"

#include <gtest/gtest.h>

#include <functional>

#include "hadal/base/random.h"
#include "hadal/error.h"
#include "tests/support/data_sets.h"

namespace hadal {
namespace {

const std::vector<int64_t> kBegins = {0, 3, 3, 10};
const std::vector<int32_t> kIds = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14};

std::string shard_bytes(int64_t vocab_size = 100) {
  const TemporaryFolder folder;
  write_shard(folder / "a.tokens", kBegins, kIds, {.vocab_size = vocab_size, .eos_id = 2});
  return read_file(folder / "a.tokens");
}

template <class T>
std::string with(std::string bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
  return bytes;
}

// Opens (and verifies) a file of these bytes; the error, or "".
std::string open_error(const std::string& bytes, const std::string& name = "a.tokens", int64_t vocab = 0,
                       const std::string& index = "") {
  const TemporaryFolder folder;
  put_file(folder / name, bytes);
  if (!index.empty()) put_file(folder / (name.substr(0, name.find('.')) + ".idx"), index);
  return error_of([&] {
    const TokenFile file = TokenFile::open(folder / name);
    file.verify(vocab > 0 ? vocab : file.vocab_size() > 0 ? file.vocab_size() : 1 << 30);
  });
}

TEST(Shard, GivesBackWhatWasWrittenInTwoAndFourBytes) {
  for (const int64_t vocab : {100, 65536, 65537, 129280}) {
    const TemporaryFolder folder;
    std::vector<int32_t> ids = kIds;
    ids.back() = static_cast<int32_t>(vocab - 1);
    write_shard(folder / "a.tokens", kBegins, ids, {.vocab_size = vocab, .eos_id = 2});
    EXPECT_EQ(folder.entries().size(), 1u);
    const TokenFile file = TokenFile::open(folder / "a.tokens");
    EXPECT_EQ(file.token_bytes(), vocab > 65536 ? 4 : 2);
    EXPECT_EQ(file.header()->eos_id, 2);
    EXPECT_EQ(file.vocab_size(), vocab);
    ASSERT_EQ(file.num_documents(), 3);
    for (int64_t d = 0; d < 4; ++d) EXPECT_EQ(file.document_begin(d), kBegins[static_cast<size_t>(d)]);
    std::vector<int32_t> read(10);
    file.read(0, 10, read.data(), vocab);
    EXPECT_EQ(read, ids);
    EXPECT_NO_THROW(file.verify(vocab));
    EXPECT_EQ(file.largest_id(), vocab - 1);
  }
}

TEST(Shard, IdsOutsideTheVocabularyAreNotWritten) {
  const TemporaryFolder folder;
  for (const int32_t id : {-1, 100}) {
    const std::vector<int32_t> ids = {id};
    const std::vector<int64_t> begins = {0, 1};
    EXPECT_THROW(write_shard(folder / "a.tokens", begins, ids, {.vocab_size = 100}), Error);
  }
  EXPECT_TRUE(folder.entries().empty());
}

// Header fields by byte, as in README.md.
TEST(Shard, EachWrongHeaderFieldIsNamedByItsByte) {
  const std::string good = shard_bytes();
  ASSERT_EQ(open_error(good), "no error");
  const std::pair<std::string, const char*> cases[] = {
      {with(good, 0, 'X'), "byte 0: no hadal shard"},
      {with(good, 8, uint32_t{2}), "byte 8: got version 2"},
      {with(good, 8, uint32_t{0}), "byte 8: got version 0"},
      {with(good, 12, uint32_t{3}), "byte 12: got 3 bytes"},
      {with(good, 12, uint32_t{0}), "byte 12: got 0 bytes"},
      {with(good, 12, uint32_t{4}), "byte 32: got a vocabulary of 100 in 4-byte"},
      {with(good, 16, int64_t{-1}), "byte 16: got -1 documents"},
      {with(good, 16, INT64_MAX), "byte 16"},
      {with(good, 16, int64_t{2}), "its header says"},
      {with(good, 16, int64_t{4}), "its header says"},
      {with(good, 24, int64_t{-1}), "byte 24: got -1 tokens"},
      {with(good, 24, INT64_MIN), "byte 24"},
      {with(good, 24, INT64_MAX / 2), "byte 24"},
      {with(good, 24, int64_t{9}), "its header says"},
      {with(good, 24, int64_t{11}), "its header says"},
      {with(good, 32, int64_t{0}), "byte 32: got a vocabulary of 0"},
      {with(good, 32, int64_t{-5}), "byte 32"},
      {with(good, 32, int64_t{70000}), "byte 32"},
      {with(good, 32, INT64_MAX), "byte 32"},
      {with(good, 40, int64_t{-2}), "byte 40: got EOS -2"},
      {with(good, 40, int64_t{100}), "byte 40: got EOS 100"},
      {with(good, 48, good[48] + 1), "byte 48: the hash"},
      {with(good, 80, char(1)), "byte 48: the hash"},
      {with(good, 112, char(1)), "byte 112: reserved"},
      {with(good, 127, char(1)), "byte 127: reserved"},
      {with(good, 128, int64_t{1}), "byte 128: document 0"},
      {with(good, 136, int64_t{-1}), "byte 136: document 1"},
      {with(good, 136, int64_t{4}), "byte 144: document 2 starts at token 3"},
      {with(good, 144, INT64_MAX), "byte 144: document 2"},
      {with(good, 152, int64_t{9}), "byte 152: document 3"},
      {with(good, 160, uint16_t{50}), "byte 48: the hash"},
      {good + "x", "the file has 181 bytes, its header says 180"},
  };
  for (const auto& [bytes, text] : cases) {
    const std::string error = open_error(bytes);
    EXPECT_NE(error.find(text), std::string::npos) << text << "\n" << error;
    EXPECT_NE(error.find("a.tokens"), std::string::npos) << error;
  }
}

TEST(Shard, EveryTruncationIsAnError) {
  const std::string good = shard_bytes();
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_NE(open_error(good.substr(0, size)).find("byte"), std::string::npos) << size;
}

TEST(Shard, EveryFlippedBitIsFoundByVerify) {
  for (const int64_t vocab : {100, 70000}) {
    const std::string good = shard_bytes(vocab);
    for (size_t bit = 0; bit < 8 * good.size(); ++bit)
      EXPECT_NE(open_error(with(good, bit / 8, static_cast<char>(good[bit / 8] ^ (1 << bit % 8)))),
                "no error")
          << bit / 8;
  }
}

// Opening, reading and verifying noise ends in an error or not, but ends: for the sanitizers.
TEST(Shard, RandomDamageIsAnErrorAndNothingWorse) {
  const std::string good = shard_bytes();
  for (uint64_t i = 0; i < 500; ++i) {
    std::string bytes = good;
    for (uint64_t k = 0; k < 1 + i % 4; ++k) {
      const auto r = philox(i, 1, k);
      bytes[r[0] % bytes.size()] = static_cast<char>(r[1]);
    }
    if (bytes != good) {
      EXPECT_NE(open_error(bytes), "no error") << i;
    }
  }
}

// An id above the vocabulary under a hash that is right: a writer's fault, not the disk's.
TEST(Shard, IdAboveTheVocabularyIsFoundByVerify) {
  std::string bytes = with(shard_bytes(), 164, uint16_t{100});
  const auto digest = shard_digest({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
  bytes = with(bytes, 48, digest);
  const std::string error = open_error(bytes);
  EXPECT_NE(error.find("byte 164: got token 100, need 0 to 99"), std::string::npos) << error;
}

TEST(LlmC, BothKindsAreReadAndWrongHeadersNamed) {
  const std::string gpt2 = llm_c_shard({50256, 1, 2, 3});
  EXPECT_EQ(open_error(gpt2, "a.bin"), "no error");
  std::vector<int32_t> header(256);
  header[0] = 20240801, header[1] = 7, header[2] = 3;
  const std::string llama = packed(header) + packed<uint32_t>({128000, 5, 6});
  EXPECT_EQ(open_error(llama, "a.bin"), "no error");
  const std::pair<std::string, const char*> cases[] = {
      {with(gpt2, 4, int32_t{7}), "byte 4: got version 7"},
      {with(llama, 4, int32_t{1}), "byte 4: got version 1"},
      {with(gpt2, 8, int32_t{5}), "byte 8: the header says 5 tokens"},
      {with(gpt2, 8, int32_t{-1}), "byte 8"},
      {gpt2.substr(0, 1000), "ends in the header"},
      {gpt2.substr(0, 1030), "byte 8"},
      {gpt2 + "xx", "byte 8"},
      {with(gpt2, 1026, uint16_t{50257}), "byte 1026: got token 50257"},
      {with(llama, 1024, int32_t{128256}), "byte 1024: got token 128256"},
      {with(llama, 1024, int32_t{-1}), "byte 1024: got token -1"},
  };
  for (const auto& [bytes, text] : cases) {
    const std::string error = open_error(bytes, "a.bin");
    EXPECT_NE(error.find(text), std::string::npos) << text << "\n" << error;
  }
}

TEST(NanoGpt, IsAnyOtherBinAndMustHaveEvenSize) {
  EXPECT_EQ(open_error(packed<uint16_t>({1, 2, 65535}), "a.bin"), "no error");
  EXPECT_NE(open_error("abc", "a.bin").find("byte 3: an odd number"), std::string::npos);
  EXPECT_NE(open_error(packed<uint16_t>({1, 9, 2}), "a.bin", 9).find("byte 2: got token 9"),
            std::string::npos);
}

template <class T>
void expect_megatron(uint8_t code) {
  const TemporaryFolder folder;
  write_file(folder / "a.bin", packed<T>({1, 2, 3, 4, 5, 6}));
  write_file(folder / "a.idx", megatron_index<T>(code, {2, 0, 4}));
  for (const char* name : {"a.bin", "a.idx"}) {
    const TokenFile file = TokenFile::open(folder / name);
    EXPECT_EQ(file.format(), "Megatron");
    ASSERT_EQ(file.num_documents(), 3);
    EXPECT_EQ(file.document_begin(1), 2);
    EXPECT_EQ(file.document_begin(2), 2);
    EXPECT_EQ(file.document_begin(3), 6);
    std::vector<int32_t> ids(6);
    file.read(0, 6, ids.data(), 7);
    EXPECT_EQ(ids, (std::vector<int32_t>{1, 2, 3, 4, 5, 6})) << int{code};
  }
}

TEST(Megatron, IntegersOfEveryWidthAreRead) {
  expect_megatron<uint8_t>(1);
  expect_megatron<int8_t>(2);
  expect_megatron<int16_t>(3);
  expect_megatron<int32_t>(4);
  expect_megatron<int64_t>(5);
  expect_megatron<uint16_t>(8);
}

TEST(Megatron, WrongIndexIsNamedByByte) {
  const std::string tokens = packed<int32_t>({1, 2, 3, 4, 5, 6});
  const std::string good = megatron_index<int32_t>(4, {2, 4});  // lengths at 34, pointers 42, documents 58
  ASSERT_EQ(open_error(tokens, "a.bin", 10, good), "no error");
  const std::pair<std::string, const char*> cases[] = {
      {with(good, 0, 'X'), "byte 0: it does not start"},
      {with(good, 9, uint64_t{2}), "byte 9: got version 2"},
      {with(good, 17, uint8_t{6}), "byte 17: got dtype code 6"},
      {with(good, 17, uint8_t{0}), "byte 17"},
      {with(good, 17, uint8_t{9}), "byte 17"},
      {with(good, 17, uint8_t{255}), "byte 17"},
      {with(good, 17, uint8_t{8}), "byte 50: sequence 1"},
      {with(good, 18, INT64_MAX), "ends in the lengths"},
      {with(good, 18, int64_t{-1}), "ends in the lengths"},
      {with(good, 26, INT64_MAX), "ends in the documents"},
      {with(good, 26, int64_t{0}), "no documents"},
      {with(good, 34, int32_t{-2}), "byte 34: sequence 0 has length -2"},
      {with(good, 34, int32_t{3}), "byte 50: sequence 1 is at byte 8"},
      {with(good, 38, int32_t{5}), "a.bin: byte 24: the file ends in sequence 1"},
      {with(good, 38, int32_t{3}), "a.bin: byte 20: the file has 24 bytes"},
      {with(good, 42, int64_t{4}), "byte 42: sequence 0"},
      {with(good, 58, int64_t{1}), "byte 58: document 0"},
      {with(good, 66, int64_t{3}), "byte 66: document 1"},
      {with(good, 66, int64_t{-1}), "byte 66: document 1"},
      {with(good, 74, int64_t{1}), "byte 74: document 2"},
      {good.substr(0, 20), "ends in the header"},
      {good.substr(0, 36), "ends in the lengths"},
      {good.substr(0, 50), "ends in the pointers"},
      {good.substr(0, 70), "ends in the documents"},
  };
  for (const auto& [index, text] : cases) {
    const std::string error = open_error(tokens, "a.bin", 10, index);
    EXPECT_NE(error.find(text), std::string::npos) << text << "\n" << error;
  }
}

TEST(TokenFile, OtherFilesAreRefusedWithTheWayOut) {
  const std::string error = open_error("PAR1....", "a.parquet");
  EXPECT_NE(error.find("Parquet: convert to JSONL"), std::string::npos) << error;
}

TEST(TokenFile, FolderIsItsFilesByNameAndValidationApart) {
  const TemporaryFolder folder;
  for (const char* name :
       {"b_000002.bin", "b_000001.bin", "b_val_000000.bin", "interval.bin", "x.idx", "y.txt"})
    write_file(folder / name, "xx");
  const TokenFiles files = list_token_files(folder.path());
  ASSERT_EQ(files.train.size(), 3u);
  EXPECT_EQ(files.train[0].filename(), "b_000001.bin");
  ASSERT_EQ(files.held_out.size(), 1u);
  const TemporaryFolder none;
  EXPECT_NE(error_of([&] { list_token_files(none.path()); }).find("hadal data build"), std::string::npos);
}

}  // namespace
}  // namespace hadal
