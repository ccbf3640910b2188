// A file of tokens, mapped: hadal's shards, llm.c shards, nanoGPT .bin, Megatron .bin with .idx; or tokens in
// memory, read the same way. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hadal/base/file.h"
#include "hadal/data/shard.h"

namespace hadal {

class TokenFile {
 public:
  // Recognises the format by content: hadal's and llm.c's magic numbers; a .idx beside a .bin: Megatron; any
  // other .bin: nanoGPT, 16 bits each. Throws not_found, unsupported (names what is read), corrupt (names
  // file and byte).
  static TokenFile open(const std::filesystem::path& path);
  // Tokens in memory, one document; `path` names them in errors.
  static TokenFile in_memory(std::shared_ptr<const std::vector<int32_t>> ids, std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }  // Megatron: the .bin
  const std::string& format() const { return format_; }     // "hadal", "llm.c", "nanoGPT", "Megatron", "text"
  int64_t num_documents() const { return num_documents_; }  // llm.c, nanoGPT, text: 1
  int64_t num_tokens() const { return num_tokens_; }
  int64_t document_begin(int64_t document) const;     // [0, num_documents]: the last is num_tokens
  int64_t vocab_size() const { return vocab_size_; }  // 0: the format does not say
  int32_t token_bytes() const { return width_; }
  const std::optional<ShardHeader>& header() const { return header_; }  // of hadal's format

  // Tokens [begin, begin + count) to `out`. Throws corrupt, naming the byte, for an id outside [0, limit).
  void read(int64_t begin, int64_t count, int32_t* out, int64_t limit) const;

  int64_t largest_id() const;  // reads the whole file; throws corrupt for a negative one or above 2^31 - 2

  // Everything that opening leaves out: the hash (hadal's), every id below the vocabulary.
  void verify(int64_t vocab_size) const;

  // What identifies the content: hadal's hash; of tokens in memory one of all, of other formats one of size
  // and samples, spread over the file.
  Sha256Digest identity() const;

 private:
  explicit TokenFile(const std::filesystem::path& path) : path_(path) { map(); }
  TokenFile() = default;
  void map() { bytes_ = map_.emplace(path_).bytes(); }
  void read_hadal();
  void read_llm_c();
  void read_nanogpt();
  void read_megatron(const std::filesystem::path& index);
  template <class T>
  void copy(int64_t begin, int64_t count, int32_t* out, int64_t limit) const;

  std::filesystem::path path_;
  std::optional<MappedFile> map_;                    // either this
  std::shared_ptr<const std::vector<int32_t>> ids_;  // or this holds bytes_
  std::span<const std::byte> bytes_;
  std::string format_;
  int64_t num_documents_ = 1, num_tokens_ = 0, vocab_size_ = 0;
  int64_t tokens_at_ = 0;        // byte of the first token
  int32_t width_ = 2;            // bytes per token
  bool signed_ = false;          //
  int64_t borders_at_ = 0;       // hadal: byte of the first border
  std::vector<int64_t> begins_;  // Megatron: [num_documents + 1]
  std::optional<ShardHeader> header_;
};

// The files of a source in a fixed order: `path` itself, or the token files of a folder by name. Those that
// are named for validation ("val.bin", "x_val_000000.bin") apart.
struct TokenFiles {
  std::vector<std::filesystem::path> train, held_out;
};
TokenFiles list_token_files(const std::filesystem::path& path);

}  // namespace hadal
