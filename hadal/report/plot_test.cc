#include "hadal/report/plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "hadal/error.h"
#include "hadal/report/summary.h"
#include "tests/support/error_of.h"

namespace hadal {
namespace {

RunMetrics run_of(const std::string& name, int64_t steps) {
  RunMetrics run;
  run.name = name;
  run.folder = "runs/" + name;
  for (int64_t step = 1; step <= steps; ++step) {
    const double t = static_cast<double>(step);
    run.steps.push_back({.step = step,
                         .tokens = 100 * step,
                         .loss = 5 / std::sqrt(t),
                         .mtp_loss = {6 / std::sqrt(t)},
                         .lr = 1e-3,
                         .grad_norm = 1 / t,
                         .max_vio = 1 / t});
    run.timings.push_back({step, 1, 100, .5});
    if (step % 10 == 0) run.evals.push_back({step, 5 / std::sqrt(t) + .1, 2.0, {.5}, 1.0});
    if (step % 10 == 0) run.loads.push_back({step, {{1, {1, 2, 3, 4}}, {2, {4, 4, 4, 4}}}});
  }
  return run;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

// Every element that is opened is closed, in order; void ones and self-closed ones aside.
std::string nesting_fault(const std::string& html) {
  std::string text = std::regex_replace(html, std::regex("<style>[^<]*</style>"), "");
  const size_t script = text.rfind("<script>");
  text = text.substr(0, script) + text.substr(text.rfind("</script>") + 9);
  std::vector<std::string> open;
  // An unquoted last value would swallow the slash of "/>", so that does not count as closing.
  const std::regex tag("<(/?)([a-z0-9]+)((?:\"[^\"]*\"|[^\">])*)>");
  for (std::sregex_iterator it(text.begin(), text.end(), tag), end; it != end; ++it) {
    const std::string name = (*it)[2], attributes = (*it)[3];
    if (name == "meta") continue;
    if ((*it)[1] == "/") {
      if (open.empty() || open.back() != name)
        return "</" + name + "> closes " + (open.empty() ? "" : open.back());
      open.pop_back();
    } else if (attributes.size() < 2 || attributes.back() != '/' ||
               (attributes[attributes.size() - 2] != '"' && attributes[attributes.size() - 2] != ' ')) {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> stays open";
}

TEST(Plot, PageIsWellNestedAndNeedsNothingFromElsewhere) {
  const std::string page = plot_html({run_of("a", 60), run_of("b", 40)}, {});
  EXPECT_EQ(nesting_fault(page), "");
  for (const char* outside : {"http:", "https:", "//", "src=", "@import", "url("}) {
    std::string looked_at = page;  // base64 may hold slashes
    looked_at = std::regex_replace(looked_at, std::regex("base64,[A-Za-z0-9+/=]*"), "");
    EXPECT_EQ(looked_at.find(outside), std::string::npos) << outside;
  }
}

TEST(Plot, HasEveryChartAndAHeatMapPerRunAndLayer) {
  const std::string page = plot_html({run_of("a", 60), run_of("b", 40)}, {});
  for (const char* title :
       {"Loss", "Learning rate", "Gradient norm, before clipping", "Throughput, tokens/s",
        "MFU, % of the measured peak", "MaxVio, mean over MoE layers", "MTP loss",
        "MTP acceptance on held-out text, %", "Held-out bits per byte", "a · layer 1", "b · layer 2"})
    EXPECT_EQ(count(page, std::string("<figcaption>") + title), 1u) << title;
  EXPECT_EQ(count(page, "<figure class=heat"), 4u);
  EXPECT_EQ(count(page, "<figure class=chart"), 9u);
}

TEST(Plot, WhatNoRunHasIsLeftOut) {
  RunMetrics run = run_of("dense", 20);
  run.loads.clear();
  run.timings.clear();
  run.evals.clear();
  for (StepRecord& step : run.steps) {
    step.max_vio.reset();
    step.mtp_loss.clear();
  }
  const std::string page = plot_html({run}, {});
  EXPECT_EQ(count(page, "<figure class=chart"), 3u);  // loss, learning rate, gradient norm
  EXPECT_EQ(count(page, "<figure class=heat"), 0u);
  EXPECT_EQ(page.find("MaxVio"), std::string::npos);
}

TEST(Plot, OnlyTheChartsThatAreAskedForByTheirTitles) {
  const std::vector<RunMetrics> runs = {run_of("a", 20)};
  EXPECT_EQ(count(plot_html(runs, {.only = {"maxVIO", "learning"}}), "<figure"), 2u);
  const std::string error = error_of([&] { plot_html(runs, {.only = {"entropy"}}); });
  EXPECT_NE(error.find("\"entropy\" in its title. There are: "), std::string::npos) << error;
}

TEST(Plot, RunsOfReinforcementHaveTheirOwnCharts) {
  RunMetrics run;
  run.name = "rl";
  for (int64_t step = 1; step <= 5; ++step) {
    run.values.push_back({"rl", step, {{"reward", 0.1 * static_cast<double>(step)}, {"kl", 0.01}}});
    run.values.push_back({"rl_eval", step, {{"accuracy/greedy", 0.5}, {"accuracy/sampled", 0.25}}});
  }
  const std::string page = plot_html({run}, {});
  for (const char* title : {"Reward", "Right answers on held-out tasks, %", "KL to the reference"})
    EXPECT_EQ(count(page, std::string("<figcaption>") + title), 1u) << title;
  EXPECT_EQ(count(page, "Entropy, nats"), 0u);
  EXPECT_EQ(nesting_fault(page), "");
}

TEST(Plot, PartsOfARewardHaveChartsWhereThereAreSeveral) {
  RunMetrics one, two;
  one.name = "one", two.name = "two";
  for (int64_t step = 1; step <= 5; ++step) {
    one.values.push_back({"rl", step, {{"reward", 0.5}, {"rewards/rm/mean", 0.5}, {"rewards/rm/std", 1}}});
    two.values.push_back({"rl", step, {{"rewards/rm/mean", 0.5}, {"rewards/accuracy/mean", 0.25}}});
    two.values.push_back({"rl_eval", step, {{"rewards/accuracy/mean", 0.75}}});
  }
  EXPECT_EQ(count(plot_html({one}, {}), "Part of the reward"), 0u);
  const std::string page = plot_html({one, two}, {});
  for (const char* title : {"Part of the reward: accuracy", "Part of the reward: rm"})
    EXPECT_EQ(count(page, std::string("<figcaption>") + title), 1u) << title;
  EXPECT_EQ(count(page, "<figcaption>Part of the reward"), 2u);
  EXPECT_NE(page.find("held-out, greedy"), std::string::npos);
  EXPECT_EQ(nesting_fault(page), "");
}

TEST(Plot, TextOfARunNeverBecomesMarkup) {
  RunMetrics run = run_of("</script><script>alert(1)</script>", 20);
  run.run.machine = "<img onerror=x>";
  run.notes = {"<b>note</b>"};
  const std::string page = plot_html({run, run}, {.title = "<i>t</i>"});
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_EQ(page.find("</script><script>alert"), std::string::npos);
  EXPECT_EQ(page.find("<img"), std::string::npos);
  EXPECT_EQ(page.find("<b>"), std::string::npos);
  EXPECT_EQ(page.find("<i>t"), std::string::npos);
  EXPECT_EQ(nesting_fault(page), "");
}

TEST(Plot, EmptyOnePointAndNaNRunsHavePagesWithoutNaNInTheGeometry) {
  for (const int64_t steps : {0, 1, 2}) {
    RunMetrics run = run_of("few", steps);
    EXPECT_EQ(nesting_fault(plot_html({run}, {.log_loss = true})), "") << steps;
    for (StepRecord& step : run.steps) step.loss = step.grad_norm = step.lr = std::nan("");
    for (const PlotX x : {PlotX::kStep, PlotX::kTokens, PlotX::kHours}) {
      const std::string page = plot_html({run}, {.x = x});
      EXPECT_EQ(page.find(" d=\"Mnan"), std::string::npos);
      EXPECT_FALSE(std::regex_search(page, std::regex("[=\" ]-?(nan|inf)[ \"\\]>]"))) << steps;
      EXPECT_EQ(count(page, "<figcaption>Loss"), 0u);
    }
  }
  EXPECT_NE(plot_html({run_of("none", 0)}, {}).find("No step is written yet"), std::string::npos);
}

TEST(Plot, AHundredThousandStepsMakeASmallPage) {
  EXPECT_LT(plot_html({run_of("long", 100'000)}, {}).size(), 1'000'000u);
}

TEST(Plot, HorizontalAxisMayCountTokensOrHours) {
  EXPECT_NE(plot_html({run_of("a", 50)}, {.x = PlotX::kTokens}).find(">5k</text>"), std::string::npos);
  EXPECT_NE(plot_html({run_of("a", 3600)}, {.x = PlotX::kHours}).find("\"x1\":1,"), std::string::npos);
  RunMetrics untimed = run_of("untimed", 5);
  untimed.timings.clear();
  try {
    plot_html({untimed}, {.x = PlotX::kHours});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("runs/untimed: no timing.jsonl"), std::string::npos) << e.what();
  }
  EXPECT_THROW(plot_html({}, {}), Error);
}

TEST(Plot, RunsOfOneNameGetNumbers) {
  const std::string page = plot_html({run_of("same", 20), run_of("same", 20)}, {});
  EXPECT_NE(page.find(">same</th>"), std::string::npos);
  EXPECT_NE(page.find(">same (2)</th>"), std::string::npos);
}

TEST(Plot, SmoothedLinesHaveTheRawOnesBehindThem) {
  EXPECT_EQ(count(plot_html({run_of("a", 60)}, {.smooth = 1}), "class=\"faint"), 0u);
  EXPECT_GT(count(plot_html({run_of("a", 60)}, {.smooth = 9}), "class=\"faint"), 0u);
}

TEST(Summary, OfARunOfReinforcementStepsAndRightAnswersAreKnown) {
  RunMetrics run;
  run.run.planned_steps = 8;
  run.values = {{"rl_eval", 0, {{"accuracy/greedy", 0.25}}},
                {"rl", 6, {{"reward", 1}}},
                {"rl_eval", 6, {{"accuracy/greedy", 0.75}}}};
  const std::string table = summary_html({run});
  EXPECT_NE(table.find("<td>6 of 8</td>"), std::string::npos) << table;
  EXPECT_NE(table.find("<td>25 % before, 75 % after</td>"), std::string::npos) << table;
}

TEST(Summary, StatesLastAndBestLossesAndTimes) {
  RunMetrics run = run_of("a", 100);
  run.evals = {{50, 2.0, 1.0, {.5, .25}, {}}, {100, 2.5, 1.25, {.5, .25}, {}}};
  run.run.parameters = 26'800'000;
  run.run.planned_steps = 200;
  const std::string table = summary_html({run});
  for (const char* cell : {"26.8M", "100 of 200", "2.500 (best 2.000 at step 50)", "1.250", "50 %, 25 %",
                           "1 min 40 s", "100 tokens/s", "10k"})
    EXPECT_NE(table.find(std::string("<td>") + cell + "</td>"), std::string::npos) << cell << "\n" << table;
  run.evals.pop_back();  // older than the last step: said
  EXPECT_NE(summary_html({run}).find("<td>2.000 at step 50</td>"), std::string::npos);
  EXPECT_EQ(duration_text(59.4), "59 s");
  EXPECT_EQ(duration_text(3725), "1 h 2 min");
  EXPECT_EQ(duration_text(2.34), "2.3 s");
}

}  // namespace
}  // namespace hadal
