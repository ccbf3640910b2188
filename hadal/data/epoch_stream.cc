#include "hadal/data/epoch_stream.h"

#include <algorithm>

#include "hadal/data/permutation.h"

namespace hadal {
namespace {

constexpr int64_t kBlock = DocumentForms::kBlock;
constexpr uint64_t kBlockOrder = 1, kDocumentOrder = 2;  // substreams; 3 and 4 are DocumentForms'

}  // namespace

// Where the blocks of one epoch start.
struct EpochStream::Epoch {
  int64_t number = 0;
  std::vector<int64_t> before;  // [blocks + 1], in the epoch's order
  std::vector<int64_t> block;   // [blocks]
};

// The documents of a block, in the order of one epoch.
struct EpochStream::Block {
  std::vector<int64_t> document;
  std::vector<int64_t> before;  // [documents + 1] tokens of the stream
  std::vector<bool> fim;
};

EpochStream::EpochStream(DocumentForms documents, const StreamOptions& options)
    : documents_(std::move(documents)), options_(options), blocks_(documents_.blocks()) {
  for (int64_t block = 0; block < blocks_; ++block) tokens_ += documents_.block_tokens(block);
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
    epoch->before.push_back(epoch->before.back() + documents_.block_tokens(epoch->block.back()));
  }
  const std::lock_guard lock(cache_->mutex);
  cache_->epochs[slot] = epoch;
  return epoch;
}

EpochStream::Block EpochStream::load_block(int64_t epoch, int64_t block) const {
  const uint64_t stream =
      substream(substream(substream(options_.stream, kDocumentOrder), static_cast<uint64_t>(epoch)),
                static_cast<uint64_t>(block));
  const int64_t size = documents_.block_size(block);
  const std::vector<bool> fim = documents_.chosen(epoch, block);
  Block result;
  result.before = {0};
  const Permutation order(size, options_.seed, stream);
  for (int64_t i = 0; i < size; ++i) {
    const int64_t inside = options_.shuffle ? order(i) : i;
    result.document.push_back(block * kBlock + inside);
    result.fim.push_back(fim[static_cast<size_t>(inside)]);
    result.before.push_back(result.before.back() +
                            documents_.tokens(result.document.back(), result.fim.back()));
  }
  return result;
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
      documents_.copy(block.document[i], block.fim[i], number, from, take, limit, ids + done);
      if (segment_start)  // a document is entered in its middle only at the first position
        std::fill_n(segment_start + done, take, static_cast<int32_t>(done));
      done += take;
    }
  }
}

}  // namespace hadal
