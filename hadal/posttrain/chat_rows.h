// Rows of whole samples for fine-tuning: packed by best fit, none seeing another, a pure function of the row
// number. Torch-free.
#pragma once
#include <cstdint>
#include <vector>

#include "hadal/tokenizer.h"

namespace hadal {

// [rows, length] each, length = T + 1 + J.
struct ChatRowBatch {
  int64_t rows = 0, length = 0;
  std::vector<int32_t> ids;            // filler: 0
  std::vector<int32_t> segment_start;  // first place of each one's sample; of filler: itself
  std::vector<uint8_t> trained;        // 1: a target
};

class ChatRows {
 public:
  // T + 1 places of a row are filled, J more are filler. No sample may be longer than T + 1 or empty.
  ChatRows(std::vector<TrainedTokens> samples, int64_t length, int64_t extra, uint64_t seed);

  int64_t rows_per_epoch() const { return static_cast<int64_t>(bins_.size()); }
  double filled() const;  // share of the T + 1 places

  // Rows first ... first + n - 1, epoch after epoch without end, each epoch's in an order of its own.
  ChatRowBatch read(int64_t first, int64_t n) const;
  // The same in the order of packing.
  ChatRowBatch read_plain(int64_t first, int64_t n) const;

 private:
  ChatRowBatch empty_rows(int64_t n) const;
  void fill(int64_t bin, int64_t row, ChatRowBatch& out) const;
  std::vector<TrainedTokens> samples_;
  int64_t length_, extra_;
  uint64_t seed_;
  std::vector<std::vector<uint32_t>> bins_;  // samples of each row
};

}  // namespace hadal
