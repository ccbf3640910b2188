// Answers sampled by the engine, with all that training needs of them: tokens, never text, go in and come
// out. Torch-free.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hadal/engine.h"

namespace hadal {

struct SampleRequest {
  std::shared_ptr<const std::vector<int32_t>> prompt;
  SamplingParams sampling;
  int64_t max_tokens = 0;  // of the answer, replies included
  bool want_experts = false;
};

struct Sample {
  std::shared_ptr<const std::vector<int32_t>> prompt;
  std::vector<int32_t> ids;      // the end token is the last one, if there is one
  std::vector<float> logp;       // of each, by the model itself: temperature 1; of a reply's: 0
  std::vector<int32_t> experts;  // if wanted, [ids, MoE layers, A]: chosen where each was computed, one token
                                 // before it; of a reply's: -1
  std::string text;              // without the end tokens
  FinishReason reason = FinishReason::kMaxTokens;
  // Of an answer with replies (Episode):
  std::vector<uint8_t> written;        // of each id: 1: the model's, 0: a reply's; empty: all are the model's
  size_t turn_ids = 0, turn_text = 0;  // where the last turn begins in ids and text
  int64_t turns = 0;                   // 0: nobody replied to turns
  int64_t calls = 0, failed_calls = 0;  // of tools

  bool stopped() const { return reason == FinishReason::kEndToken || reason == FinishReason::kStopString; }
  bool is_written(size_t t) const { return written.empty() || written[t] != 0; }
  int64_t num_written() const;
};

// What a turn of the model is answered with, such as its tools' results.
struct Reply {
  std::vector<int32_t> ids;  // stand behind the turn's end; the model goes on after them
  std::string text;          // the same
  int64_t calls = 0, failed_calls = 0;
  bool is_cut = false;  // a limit is met: the answer ends as one that was cut, without this reply
};
// The course of one answer: from the tokens of a turn that the model ended itself, without the end token, to
// the reply; nothing: the answer is complete. Called in the engine's thread, so a slow tool holds up all
// answers.
using Episode = std::function<std::optional<Reply>(std::span<const int32_t> turn)>;
using NewEpisode = std::function<Episode()>;

// Runs the engine until all are answered; results in the order of the requests. Requests with the same prompt
// share what the engine has cached of it: the first of them goes ahead. With `episode` each answer has one of
// its own; the next turn goes on from the very tokens, and a reply for which max_tokens has no room cuts the
// answer.
std::vector<Sample> sample_all(Engine& engine, std::span<const SampleRequest> requests,
                               const NewEpisode& episode = {});

// The seed of sample `index` of draw `draw`: a function of nothing else, so that a sample depends neither on
// the batch nor on where a run was resumed.
uint64_t sample_seed(uint64_t run_seed, int64_t draw, int64_t index);

}  // namespace hadal
