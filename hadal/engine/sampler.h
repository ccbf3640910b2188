// From logits to the next token. Torch-free. A sample depends on (seed, stream, position) and the logits
// only: neither on threads nor on who else is in the batch.
#pragma once
#include <cstdint>
#include <span>
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

struct SamplerInput {
  std::span<const float> logits_W;     // raw; -inf is a token that cannot be chosen, NaN and +inf are errors
  std::span<const int32_t> prompt;     // counts for the repetition penalty only
  std::span<const int32_t> generated;  // so far; counts for all three penalties
  int64_t num_tokens = -1;  // of the tokenizer: rows from here on are padding, never chosen; -1: all rows
  std::span<const uint64_t> allowed;  // bit i: token i may be chosen (a grammar's mask); empty: all may
};

// Probability of each of the W tokens after all steps; a dropped token has exactly 0. Temperature 0: one
// token has 1. Throws invalid_argument (params, token ids), internal (NaN, +inf or no token left in the
// logits). O(W).
std::vector<float> probabilities(const SamplingParams& params, const SamplerInput& input);

// One token drawn from probabilities(). `stream` is the request, `position` the index of the token in it.
int32_t sample(const SamplingParams& params, const SamplerInput& input, uint64_t stream, uint64_t position);

// Log probabilities of the model itself (temperature 1, nothing dropped), as APIs report them.
struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
};
// The chosen token first, then the `count` likeliest, ties to the lower id. O(W).
std::vector<TokenLogprob> logprobs(std::span<const float> logits_W, int32_t chosen, int64_t count);

}  // namespace hadal
