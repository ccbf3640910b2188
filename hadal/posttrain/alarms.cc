#include "hadal/posttrain/alarms.h"

#include <cmath>

#include "hadal/base/text.h"

namespace hadal {

std::vector<std::string> alarms(const ValuesRecord& step, const ValuesRecord& first) {
  std::vector<std::string> out;
  const auto of = [](const ValuesRecord& r, const char* name) { return r.get(name).value_or(NAN); };
  const auto percent = [](double share) { return cat(std::round(100 * share), " %"); };
  const auto tell = [&](bool wrong, const auto&... text) {
    if (wrong) out.push_back(cat("step ", step.step, ": ", text...));
  };
  const double equal = of(step, "frac_reward_zero_std"), right = of(step, "accuracy_train");
  tell(equal > 0.8, percent(equal), " of the groups got equal rewards and train nothing, ",
       right < 0.1 ? "nearly all answers are wrong: take easier tasks, or more fine-tuning before"
                   : "nearly all answers are alike: take harder tasks or a higher temperature",
       " (rollout.dynamic_rounds replaces such groups)");
  const double cut = of(step, "completions/clipped_ratio");
  tell(cut > 0.5, percent(cut),
       " of the answers were cut off: raise rollout.max_tokens, or teach the end of ",
       "an answer by fine-tuning");
  const double entropy = of(step, "entropy"), before = of(first, "entropy");
  tell(entropy < 0.25 * before, "entropy fell from ", before, " to ", entropy,
       " nats a token: lower optimizer.lr, or raise loss.eps_high, loss.beta or loss.entropy");
  tell(entropy > 3 * before, "entropy rose from ", before, " to ", entropy,
       " nats a token: lower optimizer.lr or loss.entropy");
  const double norm = of(step, "grad_norm");
  tell(norm == 0, "the gradient is zero: no answer was better than another of its group");
  tell(std::isnan(norm), "the gradient is no number");
  const double form = of(step, "rewards/format/mean"), form_before = of(first, "rewards/format/mean");
  tell(form > form_before + 0.3 && right <= of(first, "accuracy_train") + 0.01,
       "the format is met more often, the answers are no better: lower the format's weight");
  tell(form == 0, "the format is never met: fine-tune on answers that have it before");
  const double answers = of(step, "unscorable"), all = of(step, "answers");
  tell(answers > 0.01 * all, answers,
       " answers could not be scored: look at their detail in completions.jsonl");
  const double kl = of(step, "kl");
  tell(kl > 0.5, "KL to the reference is ", kl, " nats a token: lower optimizer.lr or raise loss.beta");
  return out;
}

}  // namespace hadal
