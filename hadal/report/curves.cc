#include "hadal/report/curves.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <set>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/report/chart.h"
#include "hadal/report/heat_map.h"

namespace hadal {
namespace {

// Where a step lies on the x axis.
class Place {
 public:
  Place(const RunMetrics& run, PlotX x) {
    if (x == PlotX::kTokens)
      for (const StepRecord& r : run.steps) add(r.step, static_cast<double>(r.tokens));
    if (x == PlotX::kHours) {
      double hours = 0;
      for (const TimingRecord& r : run.timings)
        if (std::isfinite(r.seconds)) add(r.step, hours += std::max(0.0, r.seconds) / 3600);
    }
    is_step_ = x == PlotX::kStep;
  }
  double operator()(int64_t step) const {
    if (is_step_) return static_cast<double>(step);
    const auto behind = std::upper_bound(steps_.begin(), steps_.end(), step);
    return behind == steps_.begin() ? 0 : x_[static_cast<size_t>(behind - steps_.begin()) - 1];
  }

 private:
  void add(int64_t step, double x) {
    steps_.push_back(step);
    x_.push_back(x);
  }
  bool is_step_ = true;
  std::vector<int64_t> steps_;
  std::vector<double> x_;
};

// Charts of ValuesRecord: names of the numbers, and what the legend calls them.
struct NamedChart {
  const char* title;
  const char* kind;
  std::vector<std::pair<const char*, const char*>> names;
  double scale = 1;
};
constexpr const char* kRewardTitle = "Reward";  // its parts follow
// Of the name of a part's value: rewards/format/mean.
constexpr std::string_view kPart = "rewards/", kMean = "/mean";

const std::vector<NamedChart> kNamedCharts = {
    {"Right answers on held-out tasks, %",
     "rl_eval",
     {{"accuracy/greedy", "greedy"}, {"accuracy/sampled", "sampled"}},
     100},
    {kRewardTitle, "rl", {{"reward", ""}}},
    {"Right answers in training, %", "rl", {{"accuracy_train", ""}}, 100},
    {"Loss of the policy", "rl", {{"loss", ""}}},
    {"KL to the reference, nats a token", "rl", {{"kl", ""}}},
    {"Entropy, nats a token", "rl", {{"entropy", ""}}},
    {"Length of answers, tokens", "rl", {{"completions/mean_length", ""}}},
    {"Answers cut off, %", "rl", {{"completions/clipped_ratio", ""}}, 100},
    {"Groups of equal rewards, %", "rl", {{"frac_reward_zero_std", ""}}, 100},
    {"Gradient norm of the policy", "rl", {{"grad_norm", ""}}},
    {"Learning rate of the policy", "rl", {{"learning_rate", ""}}},
};

const char* label_of(PlotX x) {
  return x == PlotX::kStep ? "step" : x == PlotX::kTokens ? "tokens" : "hours";
}

class Page {
 public:
  Page(const std::vector<RunMetrics>& runs, const PlotOptions& options) : runs_(runs), options_(options) {
    for (const RunMetrics& run : runs_) {
      places_.emplace_back(run, options_.x);
      const Place& place = places_.back();
      if (!run.steps.empty()) last_ = std::max(last_, place(run.steps.back().step));
      if (!run.evals.empty()) last_ = std::max(last_, place(run.evals.back().step));
      if (!run.values.empty()) last_ = std::max(last_, place(run.values.back().step));
    }
  }

  std::string charts() const {
    std::string out;
    std::vector<std::string> titles;
    const auto add = [&](const Chart& chart) {
      if (!has_points(chart)) return;
      titles.push_back(chart.title);
      if (is_wanted(chart.title)) out += chart_html(chart);
    };
    for (const Chart& chart : {loss(), learning_rate(), grad_norm(), throughput(), mfu(), max_vio(),
                               mtp_loss(), mtp_acceptance(), bits_per_byte()})
      add(chart);
    for (const NamedChart& named : kNamedCharts) {
      add(named_chart(named));
      if (named.title != kRewardTitle) continue;
      for (const std::string& part : reward_parts()) add(part_chart(part));
    }
    if (out.empty() && !titles.empty()) {
      std::string known;
      for (const std::string& title : titles) known += (known.empty() ? "" : ", ") + title;
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[report.plot] no chart of these runs has \"", options_.only.front(),
                      "\" in its title. There are: ", known, "."));
    }
    return out;
  }

  std::string heat_maps() const {
    std::string out;
    if (!is_wanted("expert load")) return out;
    for (size_t i = 0; i < runs_.size(); ++i)
      for (const LoadHistory& history : histories(i))
        out += heat_map_html(history, 0, last_, label_of(options_.x));
    return out;
  }

 private:
  bool is_wanted(const std::string& title) const {
    const auto same = [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); };
    const auto in_title = [&](const std::string& word) {
      return std::search(title.begin(), title.end(), word.begin(), word.end(), same) != title.end();
    };
    return options_.only.empty() || std::any_of(options_.only.begin(), options_.only.end(), in_title);
  }

  Chart chart(const char* title) const {
    Chart c;
    c.title = title;
    c.x_label = label_of(options_.x);
    c.x_high = last_;
    return c;
  }

  // One series of run i, from the records that have the value.
  template <class Record>
  Series series(size_t i, const std::vector<Record>& records,
                const std::function<std::optional<double>(const Record&)>& value) const {
    Series out;
    for (const Record& r : records)
      if (const std::optional<double> y = value(r)) out.add(places_[i](r.step), *y);
    return out;
  }

  // A smoothed line with the raw one behind it, or the raw one alone.
  void add_smoothed(Chart& c, size_t i, Series raw, const char* label = "", bool dashed = false) const {
    size_t window = options_.smooth > 0 ? static_cast<size_t>(options_.smooth) : raw.size() / 100;
    window += window % 2 == 0;  // odd
    if (window > 1) {
      c.curves.push_back({runs_[i].name, label, static_cast<int>(i), Mark::kFaint, dashed, raw});
      raw = smoothed(raw, window);
    }
    c.curves.push_back({runs_[i].name, label, static_cast<int>(i), Mark::kLine, dashed, std::move(raw)});
  }

  Chart steps_chart(const char* title, std::optional<double> (*value)(const StepRecord&), bool smooth) const {
    Chart c = chart(title);
    for (size_t i = 0; i < runs_.size(); ++i) {
      Series raw = series<StepRecord>(i, runs_[i].steps, value);
      if (smooth)
        add_smoothed(c, i, std::move(raw));
      else
        c.curves.push_back({runs_[i].name, "", static_cast<int>(i), Mark::kLine, false, std::move(raw)});
    }
    return c;
  }

  Chart loss() const {
    Chart c = chart("Loss");
    c.log = options_.log_loss;
    int64_t not_finite = 0;
    for (size_t i = 0; i < runs_.size(); ++i) {
      Series raw =
          series<StepRecord>(i, runs_[i].steps, [](const StepRecord& r) { return std::optional(r.loss); });
      for (const double y : raw.y) not_finite += !std::isfinite(y);
      add_smoothed(c, i, std::move(raw), "training");
    }
    for (size_t i = 0; i < runs_.size(); ++i) {
      Series held =
          series<EvalRecord>(i, runs_[i].evals, [](const EvalRecord& r) { return std::optional(r.loss); });
      if (held.size())
        c.curves.push_back({runs_[i].name, "held-out", static_cast<int>(i), Mark::kPoints, true, held});
    }
    if (not_finite)
      c.note = cat(with_commas(not_finite), not_finite == 1 ? " step" : " steps", " without a finite loss");
    return c;
  }

  Chart named_chart(const NamedChart& named) const {
    Chart c = chart(named.title);
    c.from_zero = named.scale == 100;
    if (named.scale == 100) c.unit = " %";
    for (size_t i = 0; i < runs_.size(); ++i)
      for (const auto& [name, label] : named.names) {
        Series raw = series<ValuesRecord>(i, runs_[i].values, [&, name = name](const ValuesRecord& r) {
          const auto value = r.kind == named.kind ? r.get(name) : std::nullopt;
          return value ? std::optional(named.scale * *value) : std::nullopt;
        });
        const bool second = name != named.names.front().first;
        if (std::string_view(named.kind) == "rl")
          add_smoothed(c, i, std::move(raw), label, second);
        else if (raw.size())
          c.curves.push_back(
              {runs_[i].name, label, static_cast<int>(i), Mark::kPoints, second, std::move(raw)});
      }
    return c;
  }

  // Names of the parts of the reward, if a run has more than one: else the reward is the part.
  std::vector<std::string> reward_parts() const {
    std::set<std::string> all;
    size_t most = 0;
    for (const RunMetrics& run : runs_) {
      std::set<std::string> of_run;
      for (const ValuesRecord& record : run.values)
        for (const auto& [name, value] : record.values)
          if (name.starts_with(kPart) && name.ends_with(kMean))
            of_run.insert(name.substr(kPart.size(), name.size() - kPart.size() - kMean.size()));
      most = std::max(most, of_run.size());
      all.merge(of_run);
    }
    if (most < 2) return {};
    return {all.begin(), all.end()};
  }

  Chart part_chart(const std::string& part) const {
    Chart c = chart(("Part of the reward: " + part).c_str());
    const std::string name = cat(kPart, part, kMean);
    for (const char* kind : {"rl", "rl_eval"})
      for (size_t i = 0; i < runs_.size(); ++i) {
        Series raw = series<ValuesRecord>(i, runs_[i].values, [&](const ValuesRecord& r) {
          return r.kind == kind ? r.get(name) : std::nullopt;
        });
        if (kind == std::string_view("rl"))
          add_smoothed(c, i, std::move(raw), "training");
        else if (raw.size())
          c.curves.push_back(
              {runs_[i].name, "held-out, greedy", static_cast<int>(i), Mark::kPoints, true, std::move(raw)});
      }
    return c;
  }

  Chart learning_rate() const {
    Chart c = steps_chart(
        "Learning rate", [](const StepRecord& r) { return std::optional(r.lr); }, false);
    c.from_zero = true;
    return c;
  }

  Chart grad_norm() const {
    Chart c = steps_chart(
        "Gradient norm, before clipping", [](const StepRecord& r) { return std::optional(r.grad_norm); },
        true);
    c.log = true;  // spikes are many times the rest
    return c;
  }

  Chart max_vio() const {
    Chart c = steps_chart(
        "MaxVio, mean over MoE layers", [](const StepRecord& r) { return r.max_vio; }, true);
    c.from_zero = true;
    return c;
  }

  Chart throughput() const {
    Chart c = chart("Throughput");
    c.unit = " tokens/s";
    c.from_zero = true;
    for (size_t i = 0; i < runs_.size(); ++i)
      add_smoothed(c, i, series<TimingRecord>(i, runs_[i].timings, [](const TimingRecord& r) {
                     return std::optional(r.tokens_per_second);
                   }));
    c.title += ", tokens/s";
    return c;
  }

  Chart mfu() const {
    Chart c = chart("MFU, % of the measured peak");
    c.unit = " %";
    c.from_zero = true;
    for (size_t i = 0; i < runs_.size(); ++i)
      add_smoothed(c, i, series<TimingRecord>(i, runs_[i].timings, [](const TimingRecord& r) {
                     return r.mfu ? std::optional(100 * *r.mfu) : std::nullopt;
                   }));
    return c;
  }

  static size_t depths(const RunMetrics& run) {
    size_t most = 0;
    for (const StepRecord& r : run.steps) most = std::max(most, r.mtp_loss.size());
    for (const EvalRecord& r : run.evals) most = std::max(most, r.mtp_acceptance.size());
    return most;
  }
  // "" if no run has more than one MTP depth.
  std::string depth_label(size_t depth) const {
    for (const RunMetrics& run : runs_)
      if (depths(run) > 1) return cat("depth ", depth + 1);
    return "";
  }

  Chart mtp_loss() const {
    Chart c = chart("MTP loss");
    c.log = options_.log_loss;
    for (size_t i = 0; i < runs_.size(); ++i)
      for (size_t depth = 0; depth < depths(runs_[i]); ++depth)
        add_smoothed(c, i,
                     series<StepRecord>(i, runs_[i].steps,
                                        [depth](const StepRecord& r) {
                                          return depth < r.mtp_loss.size() ? std::optional(r.mtp_loss[depth])
                                                                           : std::nullopt;
                                        }),
                     depth_label(depth).c_str(), depth > 0);
    return c;
  }

  Chart mtp_acceptance() const {
    Chart c = chart("MTP acceptance on held-out text, %");
    c.unit = " %";
    c.from_zero = true;
    for (size_t i = 0; i < runs_.size(); ++i)
      for (size_t depth = 0; depth < depths(runs_[i]); ++depth)
        c.curves.push_back({runs_[i].name, depth_label(depth), static_cast<int>(i), Mark::kPoints, depth > 0,
                            series<EvalRecord>(i, runs_[i].evals, [depth](const EvalRecord& r) {
                              return depth < r.mtp_acceptance.size()
                                         ? std::optional(100 * r.mtp_acceptance[depth])
                                         : std::nullopt;
                            })});
    return c;
  }

  Chart bits_per_byte() const {
    Chart c = chart("Held-out bits per byte");
    for (size_t i = 0; i < runs_.size(); ++i)
      c.curves.push_back(
          {runs_[i].name, "", static_cast<int>(i), Mark::kPoints, false,
           series<EvalRecord>(i, runs_[i].evals, [](const EvalRecord& r) { return r.bits_per_byte; })});
    return c;
  }

  std::vector<LoadHistory> histories(size_t i) const {
    std::vector<LoadHistory> all;
    std::vector<int64_t> layers;
    for (const LoadRecord& record : runs_[i].loads)
      for (const LayerLoad& layer : record.layers) {
        auto at = std::find(layers.begin(), layers.end(), layer.layer);
        if (at == layers.end()) {
          layers.push_back(layer.layer);
          const std::string run = runs_.size() > 1 ? runs_[i].name + " · " : "";
          all.push_back({cat(run, "layer ", layer.layer), {}, {}});
          at = layers.end() - 1;
        }
        LoadHistory& history = all[static_cast<size_t>(at - layers.begin())];
        history.x.push_back(places_[i](record.step));
        history.load.push_back(layer.load);
      }
    return all;
  }

  const std::vector<RunMetrics>& runs_;
  const PlotOptions& options_;
  std::vector<Place> places_;
  double last_ = 0;
};

}  // namespace

std::string curves_html(const std::vector<RunMetrics>& runs, const PlotOptions& options) {
  const Page page(runs, options);
  const std::string charts = page.charts();
  return charts.empty() ? "<p>No step is written yet.</p>\n" : "<div class=grid>\n" + charts + "</div>\n";
}

std::string expert_loads_html(const std::vector<RunMetrics>& runs, const PlotOptions& options) {
  const std::string maps = Page(runs, options).heat_maps();
  return maps.empty() ? "" : heat_legend_html() + "<div class=grid>\n" + maps + "</div>\n";
}

}  // namespace hadal
