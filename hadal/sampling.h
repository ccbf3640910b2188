// How the next token is chosen. PUBLIC, torch-free.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace hadal {

// Applied in this order (architecture spec, generation; the order of transformers): logit bias, repetition,
// presence and frequency penalty, temperature, top-k, top-p, min-p, softmax.
struct SamplingParams {
  double temperature = 1.0;  // >= 0; 0: the largest logit, the lowest id on ties
  int64_t top_k = 0;         // keep the k largest and all equal to the k-th; 0: off
  double top_p = 1.0;        // in [0, 1]: keep the fewest likeliest tokens of this total; 1: off
  double min_p = 0.0;        // in [0, 1]: drop what is below this times the largest; 0: off
  double repetition_penalty =
      1.0;  // in [1e-6, 1e6]; of tokens seen (prompt too): logit < 0 times this, else divided by it
  double presence_penalty = 0.0;   // taken off the logit of each token generated
  double frequency_penalty = 0.0;  // the same, once per occurrence
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // added to the logit of a token id
};

// Throws invalid_argument naming the field, its value and its range.
void check(const SamplingParams& params);

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;  // natural, of the model itself: temperature 1, nothing dropped
};

}  // namespace hadal
