// Documents as they are learned from: each with an EOS after it, some in fill-in-the-middle order.
// Torch-free.
#pragma once
#include <cstdint>
#include <vector>

#include "hadal/data/document_set.h"

namespace hadal {

struct FormOptions {
  int32_t eos_id = -1;  // after each document; -1: nothing
  double fim_rate = 0;  // exact share of the documents with at least three tokens, rounded down
  FimIds fim;
  uint64_t seed = 0, stream = 0;
};

// A document in fill-in-the-middle order, "PSM" of the V3 report (3.1): begin, prefix, hole, suffix, end,
// middle. The cuts are uniform over the borders between tokens (the report does not say; text is no longer
// at hand here) and, like the choice of documents, a function of (seed, document, epoch). Of each block of
// neighbours the same number is chosen in every epoch.
class DocumentForms {
 public:
  static constexpr int64_t kBlock = 256;  // documents

  // `documents` must outlive it.
  DocumentForms(const DocumentSet& documents, const FormOptions& options);

  int64_t size() const { return documents_->size(); }
  int64_t blocks() const { return (size() + kBlock - 1) / kBlock; }
  int64_t block_size(int64_t block) const;
  int64_t block_tokens(int64_t block) const;  // O(1), the same in every epoch
  // Which documents of a block are in FIM order in an epoch.
  std::vector<bool> chosen(int64_t epoch, int64_t block) const;
  int64_t tokens(int64_t document, bool fim) const;  // EOS and FIM tokens included

  // Tokens [from, from + count) of the document as it stands in `epoch`. Throws corrupt for an id of a file
  // at or above `limit`.
  void copy(int64_t document, bool fim, int64_t epoch, int64_t from, int64_t count, int64_t limit,
            int32_t* out) const;

 private:
  int64_t eligible(int64_t block) const;

  const DocumentSet* documents_;
  FormOptions options_;
  std::vector<int32_t> fim_quota_;  // documents of each block in FIM order
};

// A stream of random numbers below another one.
uint64_t substream(uint64_t stream, uint64_t index);

}  // namespace hadal
