#include "hadal/report/summary.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "hadal/base/text.h"
#include "hadal/report/axis.h"
#include "hadal/report/svg.h"

namespace hadal {
namespace {

struct Fact {
  const char* name;
  std::string (*of)(const RunMetrics&);  // "": not stated
};

std::string percent(double share) {
  return short_number(100 * share) + " %";
}

// Four digits always: losses stand below each other.
std::string loss_text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%#.4g", value);
  return std::isfinite(value) ? buffer : short_number(value);
}

std::string parameters(const RunMetrics& r) {
  if (r.run.parameters == 0) return "";
  const std::string all = short_number(static_cast<double>(r.run.parameters));
  return r.run.active_parameters == 0
             ? all
             : all + " (" + short_number(static_cast<double>(r.run.active_parameters)) + " active)";
}

std::string steps(const RunMetrics& r) {
  const int64_t of_policy = r.values.empty() ? 0 : r.values.back().step;
  const int64_t done = r.steps.empty() ? of_policy : r.steps.back().step;
  return r.run.planned_steps > 0 && r.run.planned_steps != done
             ? with_commas(done) + " of " + with_commas(r.run.planned_steps)
             : with_commas(done);
}

// Mean over the last hundredth of the steps (at least ten), without values that are not finite.
std::string training_loss(const RunMetrics& r) {
  const size_t n = r.steps.size(), last = std::min(n, std::max<size_t>(10, n / 100));
  double sum = 0;
  int64_t count = 0;
  for (size_t i = n - last; i < n; ++i)
    if (std::isfinite(r.steps[i].loss)) {
      sum += r.steps[i].loss;
      ++count;
    }
  return count ? loss_text(sum / static_cast<double>(count)) : "";
}

std::string held_out_loss(const RunMetrics& r) {
  if (r.evals.empty()) return "";
  const auto best =
      std::min_element(r.evals.begin(), r.evals.end(),
                       [](const EvalRecord& a, const EvalRecord& b) { return a.loss < b.loss; });
  std::string text = loss_text(r.evals.back().loss);
  if (!r.steps.empty() && r.evals.back().step < r.steps.back().step)
    text += " at step " + with_commas(r.evals.back().step);
  if (best->loss < r.evals.back().loss)
    text += " (best " + loss_text(best->loss) + " at step " + with_commas(best->step) + ")";
  return text;
}

std::string max_vio(const RunMetrics& r) {
  for (auto step = r.steps.rbegin(); step != r.steps.rend(); ++step)
    if (step->max_vio) return short_number(*step->max_vio);
  return "";
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string throughput(const RunMetrics& r) {
  std::vector<double> values;
  for (const TimingRecord& t : r.timings)
    if (std::isfinite(t.tokens_per_second)) values.push_back(t.tokens_per_second);
  return values.empty() ? "" : short_number(median(values)) + " tokens/s";
}

std::string mfu(const RunMetrics& r) {
  std::vector<double> values;
  for (const TimingRecord& t : r.timings)
    if (t.mfu && std::isfinite(*t.mfu)) values.push_back(*t.mfu);
  if (values.empty()) return "";
  const std::string of =
      r.run.peak_flops > 0 ? " of " + short_number(r.run.peak_flops / 1e9) + " GFLOP/s" : "";
  return percent(median(values)) + of;
}

std::string training_time(const RunMetrics& r) {
  double seconds = 0;
  for (const TimingRecord& t : r.timings) seconds += t.seconds;
  return r.timings.empty() ? "" : duration_text(seconds);
}

std::string machine(const RunMetrics& r) {
  const std::string threads = r.run.threads > 0 ? with_commas(r.run.threads) + " threads" : "";
  return r.run.machine.empty() || threads.empty() ? r.run.machine + threads : r.run.machine + ", " + threads;
}

// Of a run of reinforcement: before and after it.
std::string held_out_tasks(const RunMetrics& r) {
  std::vector<double> right;
  for (const ValuesRecord& record : r.values)
    if (const auto greedy = record.kind == "rl_eval" ? record.get("accuracy/greedy") : std::nullopt)
      right.push_back(*greedy);
  return right.empty() ? "" : percent(right.front()) + " before, " + percent(right.back()) + " after";
}

constexpr Fact kFacts[] = {
    {"Model", [](const RunMetrics& r) { return r.run.model; }},
    {"Parameters", parameters},
    {"Experts",
     [](const RunMetrics& r) {
       if (r.run.num_experts == 0) return std::string();
       return cat(r.run.num_experts, r.run.top_k ? cat(", ", r.run.top_k, " per token") : "");
     }},
    {"Steps", steps},
    {"Tokens",
     [](const RunMetrics& r) {
       return r.steps.empty() ? "" : short_number(static_cast<double>(r.steps.back().tokens), 4);
     }},
    {"Right on held-out tasks", held_out_tasks},
    {"Training loss", training_loss},
    {"Held-out loss", held_out_loss},
    {"Bits per byte",
     [](const RunMetrics& r) {
       return r.evals.empty() || !r.evals.back().bits_per_byte ? ""
                                                               : loss_text(*r.evals.back().bits_per_byte);
     }},
    {"MTP acceptance",
     [](const RunMetrics& r) {
       std::string all;
       if (!r.evals.empty())
         for (const double one : r.evals.back().mtp_acceptance)
           all += (all.empty() ? "" : ", ") + percent(one);
       return all;
     }},
    {"MaxVio", max_vio},
    {"Throughput", throughput},
    {"MFU", mfu},
    {"Training time", training_time},
    {"Skipped steps",
     [](const RunMetrics& r) {
       return r.steps.empty() || r.steps.back().skipped == 0 ? "" : with_commas(r.steps.back().skipped);
     }},
    {"Precision", [](const RunMetrics& r) { return r.run.dtype; }},
    {"Machine", machine},
    {"Program", [](const RunMetrics& r) { return r.run.version.empty() ? "" : "hadal " + r.run.version; }},
};

}  // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "";
  if (seconds < 10) return short_number(seconds, 2) + " s";
  const auto whole = static_cast<int64_t>(std::llround(std::min(seconds, 1e15)));
  const int64_t hours = whole / 3600, minutes = whole / 60 % 60;
  if (whole < 60) return cat(whole, " s");
  if (hours == 0) return cat(minutes, " min ", whole % 60, " s");
  return cat(with_commas(hours), " h ", minutes, " min");
}

std::string summary_html(const std::vector<RunMetrics>& runs) {
  std::string head, rows;
  for (size_t i = 0; i < runs.size(); ++i)
    head += cat("<th scope=col class=c", i % 8, ">", escape_xml(runs[i].name), "</th>");
  for (const Fact& fact : kFacts) {
    std::string cells;
    bool stated = false;
    for (const RunMetrics& run : runs) {
      const std::string text = fact.of(run);
      stated |= !text.empty();
      cells += "<td>" + escape_xml(text) + "</td>";
    }
    if (stated) rows += cat("<tr><th scope=row>", fact.name, "</th>", cells, "</tr>\n");
  }
  return cat("<div class=wide><table><thead><tr><th></th>", head, "</tr></thead><tbody>\n", rows,
             "</tbody></table></div>\n");
}

}  // namespace hadal
