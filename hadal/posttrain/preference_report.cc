#include "hadal/posttrain/preference_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "hadal/base/check.h"
#include "hadal/base/json.h"
#include "hadal/posttrain/preference_loss.h"

namespace hadal {
namespace {

// Sums of accuracy become shares at the end.
void count(PreferenceShare& share, bool right) {
  ++share.pairs, share.accuracy += right;
}

void finish(PreferenceShare& share) {
  share.accuracy /= static_cast<double>(std::max<int64_t>(1, share.pairs));
}

size_t length_class(const Preference& pair) {
  const auto a = static_cast<double>(pair.chosen.size()), b = static_cast<double>(pair.rejected.size());
  const double difference = (a - b) / std::max(a, b);
  return difference < -0.1 ? 0 : difference <= 0.1 ? 1 : 2;
}

void describe_scores(std::span<const double> chosen, std::span<const double> rejected, PreferenceReport& r) {
  const auto n = static_cast<double>(chosen.size());
  double sum = 0, squares = 0;
  r.least = r.most = chosen[0];
  for (const std::span<const double> scores : {chosen, rejected})
    for (const double x : scores) sum += x, r.least = std::min(r.least, x), r.most = std::max(r.most, x);
  r.mean = sum / (2 * n);
  for (const std::span<const double> scores : {chosen, rejected})
    for (const double x : scores) squares += (x - r.mean) * (x - r.mean);
  if (squares > 0) r.deviation = std::sqrt(squares / (2 * n));
  for (const double x : chosen) r.chosen_mean += x / n;
  for (const double x : rejected) r.rejected_mean += x / n;
}

Json share_json(const PreferenceShare& share) {
  return {{"name", share.name}, {"pairs", share.pairs}, {"accuracy", share.accuracy}};
}

}  // namespace

PreferenceReport preference_report(RewardModel& model, std::span<const Preference> pairs) {
  HADAL_CHECK(!pairs.empty());
  std::vector<std::vector<int32_t>> answers;
  for (const Preference& pair : pairs) answers.push_back(pair.chosen), answers.push_back(pair.rejected);
  const std::vector<double> scores = model.score(answers);
  std::vector<double> chosen, rejected;
  for (size_t i = 0; i < pairs.size(); ++i)
    chosen.push_back(scores[2 * i]), rejected.push_back(scores[2 * i + 1]);

  PreferenceReport report;
  report.loss = bradley_terry(chosen, rejected).loss;
  describe_scores(chosen, rejected, report);
  report.lengths = {{"chosen is shorter"}, {"of about one length"}, {"chosen is longer"}};
  std::map<std::string, PreferenceShare> domains;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const bool right = chosen[i] > rejected[i];
    count(report.all, right);
    count(report.lengths[length_class(pairs[i])], right);
    if (!pairs[i].domain.empty()) count(domains[pairs[i].domain], right);
  }
  finish(report.all);
  for (PreferenceShare& share : report.lengths) finish(share);
  for (auto& [name, share] : domains) {
    share.name = name;
    finish(share);
    report.domains.push_back(share);
  }
  return report;
}

std::string report_text(const PreferenceReport& r) {
  std::string out;
  char line[240];
  const auto add = [&](const char* name, const PreferenceShare& share) {
    if (share.pairs == 0) return;
    std::snprintf(line, sizeof line, "%-28s %8lld pairs  %6.2f %%\n", name,
                  static_cast<long long>(share.pairs), 100 * share.accuracy);
    out += line;
  };
  add("chosen scores higher", r.all);
  for (const PreferenceShare& share : r.domains) add(("  " + share.name).c_str(), share);
  for (const PreferenceShare& share : r.lengths) add(("  " + share.name).c_str(), share);
  std::snprintf(line, sizeof line,
                "%-28s chosen %.3f, rejected %.3f; all %.3f +- %.3f, from %.3f to %.3f; loss %.4f\n",
                "mean score", r.chosen_mean, r.rejected_mean, r.mean, r.deviation, r.least, r.most, r.loss);
  return out + line;
}

std::string report_json(const PreferenceReport& r) {
  Json out = share_json(r.all);
  out.erase("name");
  out["loss"] = r.loss, out["mean"] = r.mean, out["deviation"] = r.deviation;
  out["chosen_mean"] = r.chosen_mean, out["rejected_mean"] = r.rejected_mean;
  out["min_reward"] = r.least, out["max_reward"] = r.most;
  out["domains"] = out["lengths"] = Json::array();
  for (const PreferenceShare& share : r.domains) out["domains"].push_back(share_json(share));
  for (const PreferenceShare& share : r.lengths) out["lengths"].push_back(share_json(share));
  return dump_json(out, 1) + "\n";
}

}  // namespace hadal
