// The reward of programs, as a part of a RewardSet.
#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/rewards/code_judge.h"
#include "hadal/rewards/reward_options.h"
#include "hadal/rewards/rule_rewards.h"

namespace hadal {
namespace {

enum class CodeScale {
  kPassFail,  // 1 or 0
  kPartial,   // share of the tests that pass
  kWeighted,  // open-r1's for contests: 1 if all pass, and a tenth of the share; -1 without code, -0.1
              // uncompiled
};

class CodeReward : public Reward {
 public:
  CodeReward(CodeScale scale, int64_t workers)
      : scale_(scale), judge_({.workers = workers, .all_tests = scale != CodeScale::kPassFail}) {}

  RewardScore score(const Task& task, const Completion& completion) const override {
    if (task.verifier != "code") return {.verdict = "not_asked"};
    CodeTask code;
    try {
      code = parse_code_task(task);
    } catch (const Error& e) {
      return {.verdict = "bad_reference", .detail = e.what()};
    }
    const std::string program = find_program(completion.prefill + completion.text, code.language);
    const CodeVerdict verdict = judge_.judge(code, program);
    return {.value = value_of(verdict), .verdict = word_of(verdict), .detail = verdict.detail};
  }

 private:
  double value_of(const CodeVerdict& verdict) const {
    if (verdict.internal_error) return kUnscorable;
    const double share = static_cast<double>(verdict.passed) / static_cast<double>(verdict.tests);
    const bool weighted = scale_ == CodeScale::kWeighted;
    if (verdict.no_code) return weighted ? -1 : 0;
    if (verdict.compile_error) return weighted ? -0.1 : 0;
    if (weighted) return (verdict.right() ? 1 : 0) + 0.1 * share;
    return scale_ == CodeScale::kPartial ? share : verdict.right() ? 1 : 0;
  }

  static const char* word_of(const CodeVerdict& verdict) {
    if (verdict.internal_error) return "internal_error";
    if (verdict.no_code) return "no_code";
    if (verdict.compile_error) return "compile_error";
    return verdict.right() ? "right" : name(verdict.first_failure);
  }

  CodeScale scale_;
  mutable CodeJudge judge_;  // its caches; thread-safe
};

}  // namespace

std::unique_ptr<Reward> code_reward(const Json& json) {
  RewardOptions options("code", json);
  const std::string scale = options.word("scale", "pass_fail", {"pass_fail", "partial", "weighted"});
  const auto workers = static_cast<int64_t>(options.number("workers", 0, 0, 1024));
  options.word("profile", "reward",
               {"reward", "evaluation"});  // "accuracy" passes it on; here both are the same
  options.end();
  return std::make_unique<CodeReward>(scale == "pass_fail" ? CodeScale::kPassFail
                                      : scale == "partial" ? CodeScale::kPartial
                                                           : CodeScale::kWeighted,
                                      workers);
}

}  // namespace hadal
