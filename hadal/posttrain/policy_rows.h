// Answers packed into rows for the training pass, each seeing itself only. Torch-free.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "hadal/config.h"
#include "hadal/posttrain/scorer.h"

namespace hadal {

// An answer that is trained on.
struct PolicySample {
  const Sample* sample = nullptr;
  const ScoredSample* old = nullptr;        // by the policy that sampled; its experts are replayed
  const ScoredSample* reference = nullptr;  // null: no KL
  double advantage = 0;
  bool masked = false;  // trains nothing, as when it was cut off
};

struct PolicyRows {
  int64_t rows = 0, length = 0;
  std::vector<int32_t> ids, segment_start;      // [rows, length]; filler: id 0, its own segment
  std::vector<int32_t> real;                    // [rows, length]: 1, of filler 0
  std::vector<std::vector<int32_t>> experts;    // by layer, [rows * length, A]; empty: a dense layer
  std::vector<std::vector<size_t>> samples_of;  // of each row, in its order
  std::vector<int64_t> first_place;             // of each sample in its row
};

// Rows as long as the fullest one, which has at most `row_tokens` or the longest sample. The last token of an
// answer stands in none: nothing comes after it. No experts are kept unless `with_experts`.
PolicyRows pack_policy_rows(const ModelConfig& model, std::span<const PolicySample> samples,
                            int64_t row_tokens, bool with_experts);

}  // namespace hadal
