#include "hadal/data/shard.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "hadal/base/check.h"
#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

constexpr uint32_t kVersion = 1;
constexpr size_t kContentAt = 48, kTokenizerAt = 80, kReservedAt = 112;
constexpr size_t kChunk = 1 << 18;  // tokens encoded at a time

[[noreturn]] void corrupt(const std::filesystem::path& path, int64_t byte, const std::string& what) {
  throw Error(ErrorCode::kCorrupt, cat("[data.shard] ", path.string(), ": byte ", byte, ": ", what));
}

template <class T>
T load(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <class T>
void store(std::array<std::byte, kShardHeaderBytes>& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

std::array<std::byte, kShardHeaderBytes> header_bytes(const ShardHeader& header) {
  std::array<std::byte, kShardHeaderBytes> bytes{};
  std::memcpy(bytes.data(), kShardMagic.data(), kShardMagic.size());
  store(bytes, 8, kVersion);
  store(bytes, 12, static_cast<uint32_t>(header.token_bytes));
  store(bytes, 16, header.documents);
  store(bytes, 24, header.tokens);
  store(bytes, 32, header.vocab_size);
  store(bytes, 40, int64_t{header.eos_id});
  store(bytes, kContentAt, header.content);
  store(bytes, kTokenizerAt, header.tokenizer);
  return bytes;
}

void hash_header(Sha256& hash, std::span<const std::byte> bytes) {
  hash.update(bytes.data(), kContentAt);
  hash.update(bytes.data() + kTokenizerAt, kShardHeaderBytes - kTokenizerAt);
}

// Hands the encoded tokens to `put`, a piece at a time.
template <class Put>
void encode(std::span<const int32_t> ids, int32_t token_bytes, Put put) {
  std::vector<uint16_t> narrow;
  for (size_t at = 0; at < ids.size(); at += kChunk) {
    const auto piece = ids.subspan(at, std::min(kChunk, ids.size() - at));
    if (token_bytes == 4) {
      put(piece.data(), piece.size_bytes());
      continue;
    }
    narrow.assign(piece.begin(), piece.end());
    put(narrow.data(), narrow.size() * sizeof(uint16_t));
  }
}

}  // namespace

int32_t token_bytes_for(int64_t vocab_size) {
  return vocab_size <= 65536 ? 2 : 4;
}

ShardHeader write_shard(const std::filesystem::path& path, std::span<const int64_t> begins,
                        std::span<const int32_t> ids, const ShardHeader& facts) {
  HADAL_CHECK(!begins.empty() && begins.front() == 0 && begins.back() == static_cast<int64_t>(ids.size()));
  for (const int32_t id : ids)
    if (id < 0 || id >= facts.vocab_size)
      throw Error(ErrorCode::kInvalidArgument, cat("[data.shard] ", path.string(), ": got token ", id,
                                                   ", need below ", facts.vocab_size, "."));
  ShardHeader header = facts;
  header.documents = static_cast<int64_t>(begins.size()) - 1;
  header.tokens = static_cast<int64_t>(ids.size());
  header.token_bytes = token_bytes_for(facts.vocab_size);
  Sha256 hash;
  hash_header(hash, header_bytes(header));
  hash.update(begins.data(), begins.size_bytes());
  encode(ids, header.token_bytes, [&](const void* data, size_t size) { hash.update(data, size); });
  header.content = hash.finish();
  AtomicFile file(path);
  const auto bytes = header_bytes(header);
  file.write(bytes.data(), bytes.size());
  file.write(begins.data(), begins.size_bytes());
  encode(ids, header.token_bytes, [&](const void* data, size_t size) { file.write(data, size); });
  file.commit();
  return header;
}

ShardHeader read_shard_header(std::span<const std::byte> bytes, const std::filesystem::path& path) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (size < kShardHeaderBytes)
    corrupt(path, size, cat("the file ends in the header: need ", kShardHeaderBytes, " bytes."));
  if (std::memcmp(bytes.data(), kShardMagic.data(), kShardMagic.size()) != 0)
    corrupt(path, 0, cat("no hadal shard: it does not start with \"", kShardMagic, "\"."));
  if (const auto version = load<uint32_t>(bytes, 8); version != kVersion)
    corrupt(path, 8, cat("got version ", version, ", need ", kVersion, ". Build it again."));
  ShardHeader header;
  header.token_bytes = load<int32_t>(bytes, 12);
  header.documents = load<int64_t>(bytes, 16);
  header.tokens = load<int64_t>(bytes, 24);
  header.vocab_size = load<int64_t>(bytes, 32);
  const auto eos = load<int64_t>(bytes, 40);
  header.content = load<Sha256Digest>(bytes, kContentAt);
  header.tokenizer = load<Sha256Digest>(bytes, kTokenizerAt);
  if (header.token_bytes != 2 && header.token_bytes != 4)
    corrupt(path, 12, cat("got ", header.token_bytes, " bytes per token, need 2 or 4."));
  if (header.documents < 0 || header.documents > size / 8)
    corrupt(path, 16, cat("got ", header.documents, " documents, more than the file can hold."));
  if (header.tokens < 0 || header.tokens > size / header.token_bytes)
    corrupt(path, 24, cat("got ", header.tokens, " tokens, more than the file can hold."));
  if (header.vocab_size < 1 || header.vocab_size > INT32_MAX ||
      token_bytes_for(header.vocab_size) != header.token_bytes)
    corrupt(path, 32,
            cat("got a vocabulary of ", header.vocab_size, " in ", header.token_bytes, "-byte tokens."));
  if (eos < -1 || eos >= header.vocab_size)
    corrupt(path, 40, cat("got EOS ", eos, ", need -1 or an id below ", header.vocab_size, "."));
  header.eos_id = static_cast<int32_t>(eos);
  for (size_t at = kReservedAt; at < static_cast<size_t>(kShardHeaderBytes); ++at)
    if (bytes[at] != std::byte{0}) corrupt(path, static_cast<int64_t>(at), "reserved byte is not zero.");
  const int64_t need = kShardHeaderBytes + 8 * (header.documents + 1) + header.tokens * header.token_bytes;
  if (size != need)
    corrupt(path, std::min(size, need), cat("the file has ", size, " bytes, its header says ", need, "."));
  int64_t before = 0;
  for (int64_t i = 0; i <= header.documents; ++i) {
    const int64_t at = kShardHeaderBytes + 8 * i;
    const auto begin = load<int64_t>(bytes, static_cast<size_t>(at));
    const bool ends_right = i < header.documents || begin == header.tokens;
    if (begin < before || begin > header.tokens || (i == 0 && begin != 0) || !ends_right)
      corrupt(path, at, cat("document ", i, " starts at token ", begin, ": not in order."));
    before = begin;
  }
  return header;
}

Sha256Digest shard_digest(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash_header(hash, bytes);
  hash.update(bytes.data() + kShardHeaderBytes, bytes.size() - static_cast<size_t>(kShardHeaderBytes));
  return hash.finish();
}

}  // namespace hadal
