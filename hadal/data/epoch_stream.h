// The documents of a set as one endless stream of tokens, shuffled anew each epoch, readable anywhere.
// Torch-free.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "hadal/data/document_forms.h"

namespace hadal {

struct StreamOptions {
  bool shuffle = true;  // false: documents in their order, each epoch
  uint64_t seed = 0, stream = 0;
};

// Epoch e holds positions [e tokens(), (e + 1) tokens()); every epoch holds every document once. Documents
// are shuffled in two levels, blocks of neighbours and inside each block, so that an epoch's index is one
// number per 256 documents; finding a position costs O(log blocks), after O(blocks) at the first of an epoch.
class EpochStream {
 public:
  EpochStream(DocumentForms documents, const StreamOptions& options);

  int64_t tokens() const { return tokens_; }  // per epoch, EOS and FIM tokens included

  // Positions [at, at + count) to ids; to segment_start (unless null) the first position of each one's
  // document, counted from `at`, at least 0. Throws corrupt for an id of a file at or above `limit`.
  void read(int64_t at, int64_t count, int64_t limit, int32_t* ids, int32_t* segment_start) const;

 private:
  struct Epoch;
  struct Block;
  std::shared_ptr<const Epoch> epoch(int64_t number) const;
  Block load_block(int64_t epoch, int64_t block) const;

  DocumentForms documents_;
  StreamOptions options_;
  int64_t blocks_ = 0, tokens_ = 0;

  struct Cache {
    std::mutex mutex;
    std::array<std::shared_ptr<const Epoch>, 2> epochs;  // by parity: a row spans two at most, or is tiny
  };
  std::unique_ptr<Cache> cache_ = std::make_unique<Cache>();
};

}  // namespace hadal
