// A model as a judge: several samples of its judgement, the responses shown in both orders, and their vote.
// Torch-free, on the engine.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "hadal/engine.h"
#include "hadal/posttrain/judgement.h"

namespace hadal {

struct JudgeConfig {
  int64_t votes = 8;  // judgements of each
  double temperature = 1;
  int64_t max_tokens = 256;
  uint64_t seed = 0;
};

class Judge {
 public:
  // The engine must outlive this and have a tokenizer.
  Judge(Engine& engine, ChatTemplate format, const JudgeConfig& config)
      : engine_(engine), format_(std::move(format)), config_(config) {}

  // config.votes judgements of each, the responses in their order and turned around by turns, from a first
  // order that a draw decides. What does not fit the context with max_tokens gets none. Samples are a
  // function of the seed and the item's draw; no draws: its index.
  std::vector<std::vector<Judgement>> judge(std::span<const JudgedAnswers> items,
                                            std::span<const int64_t> draws = {});

 private:
  Engine& engine_;
  ChatTemplate format_;
  JudgeConfig config_;
};

// How good a judge is on labelled answers.
struct JudgeReport {
  int64_t items = 0, judgements = 0, unjudged = 0;
  double valid = 0;         // share of the judgements
  double disagreement = 0;  // mean of Vote::disagreement
  // Share of items with the right vote, by votes k = 1, 2, 4, ...: mean over the groups of k that the
  // judgements make.
  std::vector<std::pair<int64_t, double>> right;
  // Of the mode that matches, by the vote of all: shares of those that do not and do match.
  double false_accept = 0, false_reject = 0;
  int64_t matching = 0, differing = 0;
};
JudgeReport judge_report(std::span<const JudgedAnswers> items,
                         std::span<const std::vector<Judgement>> judgements);
std::string report_text(const JudgeReport& report);
std::string report_json(const JudgeReport& report);

// Rejective fine-tuning: the chats of right judgements, JSONL for hadal sft; items that were judged right
// every time are too easy and left out.
std::string right_judgements(std::span<const JudgedAnswers> items,
                             std::span<const std::vector<Judgement>> judgements);

// Tasks for GRPO whose answers are judgements, scored by the reward "verdict". Both orders of each item.
std::string judge_tasks(std::span<const JudgedAnswers> items);

}  // namespace hadal
