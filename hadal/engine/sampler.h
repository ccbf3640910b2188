// From logits to the next token. Torch-free. A sample depends on (seed, stream, position) and the logits
// only: neither on threads nor on who else is in the batch.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "hadal/sampling.h"

namespace hadal {

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

// Log probabilities of the model itself, as APIs report them. The chosen token first, then the `count`
// likeliest, ties to the lower id. O(W).
std::vector<TokenLogprob> logprobs(std::span<const float> logits_W, int32_t chosen, int64_t count);

}  // namespace hadal
