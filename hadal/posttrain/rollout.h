// Answers sampled by the engine, with all that training needs of them: tokens, never text, go in and come
// out. Torch-free.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hadal/engine.h"

namespace hadal {

struct SampleRequest {
  std::shared_ptr<const std::vector<int32_t>> prompt;
  SamplingParams sampling;
  int64_t max_tokens = 0;
};

struct Sample {
  std::shared_ptr<const std::vector<int32_t>> prompt;
  std::vector<int32_t> ids;      // the end token is the last one, if there is one
  std::vector<float> logp;       // of each, by the model itself: temperature 1
  std::vector<int32_t> experts;  // [ids, MoE layers, A]: chosen where each was computed, one token before it
  std::string text;              // without the end token
  FinishReason reason = FinishReason::kMaxTokens;
  bool stopped() const { return reason == FinishReason::kEndToken || reason == FinishReason::kStopString; }
};

// Runs the engine until all are answered; results in the order of the requests. Requests with the same prompt
// share what the engine has cached of it: the first of them goes ahead.
std::vector<Sample> sample_all(Engine& engine, std::span<const SampleRequest> requests);

// The seed of sample `index` of draw `draw`: a function of nothing else, so that a sample depends neither on
// the batch nor on where a run was resumed.
uint64_t sample_seed(uint64_t run_seed, int64_t draw, int64_t index);

}  // namespace hadal
