// A score of one answer as what GRPO asks: the scores of many.
#pragma once
#include <functional>
#include <utility>

#include "hadal/posttrain/answer_groups.h"

namespace hadal {

inline ScoreAnswers one_by_one(std::function<RewardResult(const Task&, const Completion&)> score) {
  return [score = std::move(score)](std::span<const Task* const> tasks, std::span<const Completion> answers) {
    std::vector<RewardResult> out;
    for (size_t i = 0; i < answers.size(); ++i) out.push_back(score(*tasks[i], answers[i]));
    return out;
  };
}

}  // namespace hadal
