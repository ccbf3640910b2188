// Small data sets for tests, in hadal's format and others'.
#pragma once
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "hadal/base/file.h"
#include "hadal/data/dataset_writer.h"
#include "tests/support/error_of.h"
#include "tests/support/temporary_folder.h"

namespace hadal {

using Documents = std::vector<std::vector<int32_t>>;

template <class T>
std::string packed(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// `count` documents of `shortest` to `longest` tokens, all ids different and from `first` on: a token says
// where it is from.
inline Documents numbered_documents(int64_t count, int64_t shortest, int64_t longest, int32_t first = 10) {
  Documents documents;
  for (int64_t d = 0; d < count; ++d) {
    documents.emplace_back();
    for (int64_t i = 0; i < shortest + d * 7919 % (longest - shortest + 1); ++i)
      documents.back().push_back(first++);
  }
  return documents;
}

inline Manifest write_data_set(const std::filesystem::path& folder, const Documents& train,
                               const Documents& held_out = {}, int64_t shard_tokens = 100,
                               DatasetFacts facts = {.vocab_size = 100000, .eos_id = 1, .fim = {2, 3, 4}}) {
  facts.shard_tokens = shard_tokens;
  DatasetWriter writer(folder, facts, true);
  for (const auto& document : train) writer.add(document, false);
  for (const auto& document : held_out) writer.add(document, true);
  return writer.finish();
}

inline std::string llm_c_shard(const std::vector<uint16_t>& ids) {
  std::vector<int32_t> header(256);
  header[0] = 20240520, header[1] = 1, header[2] = static_cast<int32_t>(ids.size());
  return packed(header) + packed(ids);
}

// .idx of documents, each one sequence.
template <class T>
std::string megatron_index(uint8_t code, const std::vector<int32_t>& lengths) {
  std::string index("MMIDIDX\0\0", 9);
  index += packed<uint64_t>({1}) + packed<uint8_t>({code});
  index += packed<uint64_t>({lengths.size(), lengths.size() + 1}) + packed(lengths);
  std::vector<int64_t> pointers, documents = {0};
  int64_t at = 0;
  for (const int32_t length : lengths) {
    pointers.push_back(at);
    at += length * static_cast<int64_t>(sizeof(T));
    documents.push_back(static_cast<int64_t>(pointers.size()));
  }
  return index + packed(pointers) + packed(documents);
}

// write_file() without waiting for the disk: thousands of damaged files take no time.
inline void put_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace hadal
