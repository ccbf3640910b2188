// hadal's own file of tokens: documents with their borders, and a hash over everything. Layout in README.md.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "hadal/base/sha256.h"

namespace hadal {

inline constexpr std::string_view kShardMagic = "HADALTOK";
inline constexpr int64_t kShardHeaderBytes = 128;

struct ShardHeader {
  int64_t documents = 0, tokens = 0;
  int64_t vocab_size = 0;    // every id is below
  int32_t eos_id = -1;       // to put after each document when reading; -1: none. Not in the file's tokens.
  int32_t token_bytes = 2;   // 2 or 4
  Sha256Digest content{};    // of header (without this field), borders and tokens
  Sha256Digest tokenizer{};  // of tokenizer.json; zero: unknown
};

// 2 while ids fit 16 bits.
int32_t token_bytes_for(int64_t vocab_size);

// Writes a shard, whole or not at all. begins: [documents + 1], ascending from 0 to ids.size(). `header`:
// vocab_size, eos_id and tokenizer count, the rest is set here and returned. Throws what AtomicFile throws;
// invalid_argument for an id outside the vocabulary.
ShardHeader write_shard(const std::filesystem::path& path, std::span<const int64_t> begins,
                        std::span<const int32_t> ids, const ShardHeader& header);

// Reads and checks the header and the borders against the size of `bytes` (the whole file). Throws corrupt,
// naming file and byte.
ShardHeader read_shard_header(std::span<const std::byte> bytes, const std::filesystem::path& path);

// The hash that the content has; the header says what it should be. Only after read_shard_header().
Sha256Digest shard_digest(std::span<const std::byte> bytes);

}  // namespace hadal
