#include "hadal/data/epoch_stream.h"

#include <algorithm>
#include <cmath>

#include "hadal/base/random.h"
#include "hadal/data/permutation.h"

namespace hadal {
namespace {

constexpr int64_t kBlock = 256;   // documents
constexpr int64_t kShortest = 3;  // tokens of a document that FIM may touch
constexpr uint64_t kBlockOrder = 1, kDocumentOrder = 2, kFimChoice = 3, kFimCuts = 4;  // substreams

// A run of tokens of a document as it stands in the stream: of its file, or one special token.
struct Piece {
  int64_t begin = 0, count = 0;
  int32_t special = -1;
};

}  // namespace

// Where the blocks of one epoch start.
struct EpochStream::Epoch {
  int64_t number = 0;
  std::vector<int64_t> before;  // [blocks + 1], in the epoch's order
  std::vector<int64_t> block;   // [blocks]
};

// The documents of a block, in the order of one epoch.
struct EpochStream::Block {
  int64_t epoch = 0;
  std::vector<int64_t> document;
  std::vector<int64_t> before;  // [documents + 1] tokens of the stream
  std::vector<bool> fim;
};

uint64_t substream(uint64_t stream, uint64_t index) {
  const auto bits = philox(stream, index, 0x64617461);
  return uint64_t{bits[0]} << 32 | bits[1];
}

EpochStream::EpochStream(const DocumentSet& documents, const StreamOptions& options)
    : documents_(documents), options_(options), blocks_((documents.size() + kBlock - 1) / kBlock) {
  double seen = 0;  // eligible documents so far
  int64_t chosen = 0;
  for (int64_t block = 0; options_.fim_rate > 0 && block < blocks_; ++block) {
    seen += static_cast<double>(eligible(block));
    const auto until = static_cast<int64_t>(std::floor(options_.fim_rate * seen));
    fim_quota_.push_back(static_cast<int32_t>(until - chosen));
    chosen = until;
  }
  for (int64_t block = 0; block < blocks_; ++block) tokens_ += block_tokens(block);
}

int64_t EpochStream::block_size(int64_t block) const {
  return std::min(kBlock, documents_.size() - block * kBlock);
}

int64_t EpochStream::block_tokens(int64_t block) const {
  const int64_t first = block * kBlock, size = block_size(block);
  const int64_t own = documents_.tokens_before(first + size) - documents_.tokens_before(first);
  const int64_t fim = fim_quota_.empty() ? 0 : 3 * fim_quota_[static_cast<size_t>(block)];
  return own + (options_.eos_id >= 0 ? size : 0) + fim;
}

int64_t EpochStream::eligible(int64_t block) const {
  int64_t count = 0;
  for (int64_t i = 0; i < block_size(block); ++i)
    count += documents_.at(block * kBlock + i).count >= kShortest;
  return count;
}

std::shared_ptr<const EpochStream::Epoch> EpochStream::epoch(int64_t number) const {
  const size_t slot = static_cast<size_t>(number % 2);
  {
    const std::lock_guard lock(cache_->mutex);
    if (const auto& known = cache_->epochs[slot]; known && known->number == number) return known;
  }
  auto epoch = std::make_shared<Epoch>();
  epoch->number = number;
  epoch->before = {0};
  const uint64_t stream = substream(substream(options_.stream, kBlockOrder), static_cast<uint64_t>(number));
  const Permutation order(blocks_, options_.seed, stream);
  for (int64_t i = 0; i < blocks_; ++i) {
    epoch->block.push_back(options_.shuffle ? order(i) : i);
    epoch->before.push_back(epoch->before.back() + block_tokens(epoch->block.back()));
  }
  const std::lock_guard lock(cache_->mutex);
  cache_->epochs[slot] = epoch;
  return epoch;
}

EpochStream::Block EpochStream::load_block(int64_t epoch, int64_t block) const {
  const auto stream = [&](uint64_t purpose) {
    return substream(substream(substream(options_.stream, purpose), static_cast<uint64_t>(epoch)),
                     static_cast<uint64_t>(block));
  };
  const int64_t size = block_size(block);
  Block result;
  result.epoch = epoch;
  result.before = {0};
  std::vector<bool> fim(static_cast<size_t>(size));
  if (const int32_t quota = fim_quota_.empty() ? 0 : fim_quota_[static_cast<size_t>(block)]; quota > 0) {
    const Permutation choice(size, options_.seed, stream(kFimChoice));
    int32_t chosen = 0;
    for (int64_t i = 0; chosen < quota; ++i) {
      const int64_t document = choice(i);
      if (documents_.at(block * kBlock + document).count < kShortest) continue;
      fim[static_cast<size_t>(document)] = true;
      ++chosen;
    }
  }
  const Permutation order(size, options_.seed, stream(kDocumentOrder));
  for (int64_t i = 0; i < size; ++i) {
    const int64_t inside = options_.shuffle ? order(i) : i;
    const int64_t document = block * kBlock + inside;
    result.document.push_back(document);
    result.fim.push_back(fim[static_cast<size_t>(inside)]);
    result.before.push_back(result.before.back() + documents_.at(document).count + (options_.eos_id >= 0) +
                            (result.fim.back() ? 3 : 0));
  }
  return result;
}

void EpochStream::copy_document(const Block& block, size_t slot, int64_t from, int64_t count, int64_t limit,
                                int32_t* out) const {
  const DocumentTokens tokens = documents_.at(block.document[slot]);
  const int64_t begin = tokens.begin, n = tokens.count;
  std::array<Piece, 7> pieces{Piece{begin, n}};
  size_t used = 1;
  if (block.fim[slot]) {
    const uint64_t stream =
        substream(substream(options_.stream, kFimCuts), static_cast<uint64_t>(block.epoch));
    const auto bits = philox(options_.seed, stream, static_cast<uint64_t>(block.document[slot]));
    int64_t cuts[2];  // uniform in [0, n]
    for (size_t i = 0; i < 2; ++i)
      cuts[i] = static_cast<int64_t>((uint64_t{bits[2 * i]} << 32 | bits[2 * i + 1]) %
                                     static_cast<uint64_t>(n + 1));
    const auto [a, b] = std::minmax(cuts[0], cuts[1]);
    pieces = {Piece{0, 1, options_.fim.begin}, Piece{begin, a},
              Piece{0, 1, options_.fim.hole},  Piece{begin + b, n - b},
              Piece{0, 1, options_.fim.end},   Piece{begin + a, b - a}};
    used = 6;
  }
  if (options_.eos_id >= 0) pieces[used++] = {0, 1, options_.eos_id};
  for (size_t i = 0; i < used && count > 0; ++i) {
    const Piece& piece = pieces[i];
    if (from >= piece.count) {
      from -= piece.count;
      continue;
    }
    const int64_t take = std::min(piece.count - from, count);
    if (piece.special >= 0)
      *out = piece.special;
    else
      tokens.file->read(piece.begin + from, take, out, limit);
    out += take, count -= take, from = 0;
  }
}

void EpochStream::read(int64_t at, int64_t count, int64_t limit, int32_t* ids, int32_t* segment_start) const {
  int64_t done = 0;
  while (done < count) {
    const int64_t number = (at + done) / tokens_, inside = (at + done) % tokens_;
    const auto order = epoch(number);
    const size_t slot = static_cast<size_t>(
        std::upper_bound(order->before.begin(), order->before.end() - 1, inside) - order->before.begin() - 1);
    const Block block = load_block(number, order->block[slot]);
    const int64_t in_block = inside - order->before[slot];
    size_t i = static_cast<size_t>(std::upper_bound(block.before.begin(), block.before.end() - 1, in_block) -
                                   block.before.begin() - 1);
    for (int64_t from = in_block - block.before[i]; i < block.document.size() && done < count;
         ++i, from = 0) {
      const int64_t take = std::min(block.before[i + 1] - block.before[i] - from, count - done);
      copy_document(block, i, from, take, limit, ids + done);
      if (segment_start)  // a document is entered in its middle only at the first position
        std::fill_n(segment_start + done, take, static_cast<int32_t>(done));
      done += take;
    }
  }
}

}  // namespace hadal
