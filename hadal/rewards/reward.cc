#include "hadal/rewards/reward.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>
#include <thread>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidConfig, cat("[rewards.set] ", what));
}

// "name", "name:weight", "name:path:weight" or a JSON object, as an object.
Json parse_specification(const std::string& text) {
  if (!text.empty() && text[0] == '{') return parse_json(text, "reward");
  const size_t colon = text.find(':');
  Json out{{"name", text.substr(0, colon)}};
  if (colon == std::string::npos) return out;
  const size_t last = text.rfind(':');
  if (last != colon) out["path"] = text.substr(colon + 1, last - colon - 1);
  double weight = 0;
  const char *begin = text.data() + last + 1, *end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(begin, end, weight);
  if (error != std::errc() || stop != end || !std::isfinite(weight))
    refuse(cat("\"", text, "\": the weight is no number. Write name:weight, as in maths:1."));
  out["weight"] = weight;
  return out;
}

double number_or(const Json& spec, const char* key, double otherwise) {
  if (!spec.contains(key)) return otherwise;
  if (!spec[key].is_number()) refuse(cat("\"", key, "\" is ", spec[key].type_name(), ", need a number."));
  return spec[key].get<double>();
}

std::string text_or_empty(const Json& spec, const char* key) {
  if (!spec.contains(key)) return "";
  if (!spec[key].is_string()) refuse(cat("\"", key, "\" is ", spec[key].type_name(), ", need text."));
  return spec[key].get<std::string>();
}

double cut_factor(double value) {
  if (value > 1) refuse(cat("stop_properly is ", value, ", need at most 1."));
  return value;
}

}  // namespace

const RewardPart* RewardResult::part(std::string_view name) const {
  for (const RewardPart& one : parts)
    if (one.name == name) return &one;
  return nullptr;
}

std::vector<RewardScore> Reward::score_all(std::span<const Task* const> tasks,
                                           std::span<const Completion> completions, int threads) const {
  std::vector<RewardScore> out(completions.size());
  std::vector<std::exception_ptr> errors(completions.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < out.size(); i = next++) {
      try {
        out[i] = score(*tasks[i], completions[i]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  std::vector<std::thread> others;
  const auto at_a_time = std::min(out.size(), static_cast<size_t>(kAnswersPerThread * std::max(1, threads)));
  for (size_t i = 1; i < at_a_time; ++i) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  return out;
}

// `scores`: of the entries in their order.
RewardResult RewardSet::combined(std::vector<RewardScore> scores, bool stopped) const {
  RewardResult result;
  double sum = 0;
  bool any = false;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    RewardPart part{.name = entry.name, .weight = entry.weight, .score = std::move(scores[i])};
    if (const RewardPart* gate = entry.gate.empty() ? nullptr : result.part(entry.gate);
        gate && gate->score.value < 1 && part.score.value > 0)
      part.score = {.value = 0, .verdict = "gated", .detail = entry.gate + " is not met"};
    if (!std::isnan(part.score.value) && part.weight != 0) sum += part.weight * part.score.value, any = true;
    result.parts.push_back(std::move(part));
  }
  if (!any) return result;
  result.total = sum;
  if (!stopped) result.total = cut_factor_ < 0 ? cut_factor_ : sum * cut_factor_;
  return result;
}

RewardResult RewardSet::score(const Task& task, const Completion& completion) const {
  std::vector<RewardScore> scores;
  for (const Entry& entry : entries_) scores.push_back(entry.reward->score(task, completion));
  return combined(std::move(scores), completion.stopped);
}

std::vector<RewardResult> RewardSet::score_all(std::span<const Task* const> tasks,
                                               std::span<const Completion> completions, int threads) const {
  HADAL_CHECK(tasks.size() == completions.size()) << tasks.size() << " " << completions.size();
  std::vector<std::vector<RewardScore>> scores(completions.size());
  for (const Entry& entry : entries_) {
    std::vector<RewardScore> of_entry = entry.reward->score_all(tasks, completions, threads);
    HADAL_CHECK(of_entry.size() == scores.size()) << entry.name;
    for (size_t i = 0; i < scores.size(); ++i) scores[i].push_back(std::move(of_entry[i]));
  }
  std::vector<RewardResult> out;
  for (size_t i = 0; i < scores.size(); ++i)
    out.push_back(combined(std::move(scores[i]), completions[i].stopped));
  return out;
}

RewardResult RewardSet::score(const Task& task, std::string_view text) const {
  Completion completion;
  completion.text = text;
  return score(task, completion);
}

std::vector<std::string> RewardSet::names() const {
  std::vector<std::string> names;
  for (const Entry& entry : entries_) names.push_back(entry.name);
  return names;
}

RewardSet reward_set(const std::vector<std::string>& specifications, const RewardKinds& kinds) {
  RewardSet set;
  std::vector<std::string> known = {"stop_properly"};
  for (const auto& [name, maker] : kinds) known.push_back(name);
  for (const std::string& text : specifications) {
    Json options = parse_specification(text);
    if (!options.is_object()) refuse("a reward is text or a JSON object.");
    const std::string name = text_or_empty(options, "name");
    const double weight = number_or(options, "weight", 1);
    const std::string gate = text_or_empty(options, "gate");
    for (const char* key : {"name", "weight", "gate"}) options.erase(key);
    if (name == "stop_properly") {
      set.cut_factor_ = cut_factor(weight);
      continue;
    }
    const auto kind = kinds.find(name);
    if (kind == kinds.end())
      refuse(cat(
          "there is no reward \"", name, "\"", did_you_mean(name, known), ". Known: ",
          [&] {
            std::string list;
            for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
            return list;
          }(),
          "."));
    bool before = false;
    for (const RewardSet::Entry& entry : set.entries_) {
      if (entry.name == name) refuse(cat("\"", name, "\" is there twice. Give it once, with its weight."));
      before |= entry.name == gate;
    }
    if (!gate.empty() && !before)
      refuse(cat("gate \"", gate, "\" of \"", name, "\" is no reward before it."));
    set.entries_.push_back({.name = name, .weight = weight, .gate = gate, .reward = kind->second(options)});
  }
  if (set.entries_.empty()) refuse("no reward is given. Need at least one, such as maths:1.");
  return set;
}

}  // namespace hadal
