#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/machine.h"
#include "hadal/base/text.h"
#include "hadal/cli/recipe.h"
#include "hadal/report/recipe_page.h"
#include "hadal/report/summary.h"
#include "hadal/rewards/task_score.h"

namespace hadal {
namespace {

constexpr size_t kSamplesPerTask = 3;

std::string percent_number(double share) {
  char text[40];
  std::snprintf(text, sizeof text, "%.1f", 100 * share);
  return text;
}

std::string percent(double share) {
  return cat(percent_number(share), " %");
}

class ReportReader {
 public:
  ReportReader(const Recipe& recipe, const std::filesystem::path& folder)
      : report_(recipe.report), folder_(folder) {
    for (const std::string& run : report_.runs)
      if (std::filesystem::exists(folder_ / run / "metrics.jsonl")) {
        runs_.push_back(read_run(folder_ / run));
        runs_.back().name = run;
      }
  }

  TableOf accuracies() const {
    TableOf table{
        .title = "Right answers on held-out tasks, percent",
        .head = {"Task"},
        .rows = {},
        .note =
            "± is the standard error over the tasks. Greedy: the likeliest answer to each; sampled: "
            "several answers at temperature 1. None of the tasks was trained on."};
    table.head.insert(table.head.end(), report_.models.begin(), report_.models.end());
    for (const auto& task : report_.tasks)
      for (const auto& [suffix, how] : {std::pair{"", "greedy"}, {"-sampled", "sampled"}})
        add_row(table, task, suffix, how);
    return table;
  }

  TableOf sizes() const {
    TableOf table{
        .title = "Sizes", .head = {"Model", "Weights on disk", "Matrices in"}, .rows = {}, .note = ""};
    for (const std::string& model : report_.models) {
      int64_t bytes = 0;
      if (!std::filesystem::exists(folder_ / model / "config.json")) continue;
      for (const auto& file : std::filesystem::directory_iterator(folder_ / model))
        if (file.path().extension() == ".safetensors") bytes += static_cast<int64_t>(file.file_size());
      const Json config = parse_json(read_file(folder_ / model / "config.json"), model);
      const bool quantised = config.contains("quantization_config");
      table.rows.push_back({model, with_commas(bytes) + " bytes",
                            quantised ? config["quantization_config"].value("quant_method", "")
                                      : config.value("torch_dtype", config.value("dtype", std::string()))});
    }
    return table;
  }

  // What the reward model and the drafts reach.
  TableOf figures() const {
    TableOf table{
        .title = "Reward model and multi-token prediction", .head = {"Figure", ""}, .rows = {}, .note = ""};
    const auto reward = folder_ / report_.reward / "reward_model.json";
    if (!report_.reward.empty() && std::filesystem::exists(reward)) {
      const Json found = parse_json(read_file(reward), reward.string());
      if (found.contains("accuracy"))
        table.rows.push_back(
            {"the reward model prefers the better of two held-out answers", percent(found["accuracy"])});
    }
    for (const RunMetrics& run : runs_)
      if (!run.evals.empty() && !run.evals.back().mtp_acceptance.empty())
        table.rows.push_back(
            {cat("the MTP module guesses the token after the next one, held-out text of ", run.name),
             percent(run.evals.back().mtp_acceptance[0])});
    const auto drafts = folder_ / report_.drafts;
    if (!report_.drafts.empty() && std::filesystem::exists(drafts)) {
      const Json found = parse_json(read_file(drafts), drafts.string()).at("results").at(0);
      char speed[40];
      std::snprintf(speed, sizeof speed, "%.2f times", found.at("speedup").get<double>());
      table.rows.push_back(
          {"drafts of the MTP module that stand, random prompts", percent(found.at("acceptance"))});
      table.rows.push_back({"speed of decoding with drafts, to that without", speed});
    }
    return table;
  }

  std::vector<SampleBlock> samples() const {
    std::vector<SampleBlock> all;
    if (SampleBlock texts = continued_texts(); !texts.texts.empty()) all.push_back(std::move(texts));
    for (const auto& task : report_.tasks) {
      const std::vector<Json> questions = read_json_lines(folder_ / task.questions);
      for (size_t i = 0; i < std::min(kSamplesPerTask, questions.size()); ++i) {
        SampleBlock block{.prompt = prompt_of(questions[i]), .texts = {}};
        for (const std::string& model : report_.models)
          if (const std::vector<Json>& answers = results(model, task.name); i < answers.size()) {
            const Json& sample = answers[i].at("samples").at(0);
            const Json& right = sample.at("right");
            block.texts.push_back(
                {model, sample.at("text"), right.is_null() ? -1 : right.get<double>() > 0.5});
          }
        if (!block.texts.empty()) all.push_back(std::move(block));
      }
    }
    return all;
  }

  std::vector<StageCost> costs() const {
    std::vector<StageCost> all;
    std::map<std::string, size_t> place;
    for (const StageRecord& one : read_stages(folder_)) {
      const auto [at, fresh] = place.insert({one.stage, all.size()});
      if (fresh) all.push_back({.title = one.title});
      StageCost& cost = all[at->second];
      cost.seconds += one.seconds, cost.cpu_seconds += one.cpu_seconds;
      cost.peak_bytes = std::max(cost.peak_bytes, one.peak_bytes);
    }
    return all;
  }

  const std::vector<RunMetrics>& runs() const { return runs_; }

 private:
  void add_row(TableOf& table, const RecipeReport::TaskSet& task, const char* suffix, const char* how) const {
    std::vector<std::string> row{cat(task.title, ", ", how)};
    bool stated = false;
    for (const std::string& model : report_.models) {
      const auto file = folder_ / "eval" / cat(model, "-", task.name, suffix, ".jsonl");
      if (!std::filesystem::exists(file)) {
        row.push_back("");
        continue;
      }
      std::vector<double> shares;
      for (const QuestionSamples& one : read_task_results(file)) {
        double right = 0;
        for (const double x : one.right) right += x;
        shares.push_back(one.right.empty() ? 0 : right / static_cast<double>(one.right.size()));
      }
      const Estimate found = estimate(shares);
      row.push_back(cat(percent_number(found.mean), " ± ", percent_number(found.error)));
      stated = true;
    }
    if (stated) table.rows.push_back(std::move(row));
  }

  SampleBlock continued_texts() const {
    SampleBlock block{.prompt = report_.text_prompt, .texts = {}};
    for (const std::string& model : report_.models)
      if (const auto file = folder_ / "texts" / (model + ".txt"); std::filesystem::exists(file))
        block.texts.push_back({model, read_file(file)});
    return block;
  }

  static std::string prompt_of(const Json& question) {
    const Json& prompt = question.at("prompt");
    return prompt.is_string() ? prompt.get<std::string>() : prompt.back().at("content").get<std::string>();
  }

  const std::vector<Json>& results(const std::string& model, const std::string& task) const {
    const auto [at, fresh] = results_.insert({model + "-" + task, {}});
    if (fresh) at->second = read_json_lines(folder_ / "eval" / (at->first + ".jsonl"));
    return at->second;
  }

  const RecipeReport& report_;
  const std::filesystem::path& folder_;
  std::vector<RunMetrics> runs_;
  mutable std::map<std::string, std::vector<Json>> results_;
};

}  // namespace

std::string recipe_report_html(const Recipe& recipe, const std::filesystem::path& folder, uint64_t seed) {
  const ReportReader reader(recipe, folder);
  RecipePage page{.title = recipe.title, .subtitle = "", .tables = {}, .stages = reader.costs()};
  double seconds = 0;
  for (const StageCost& one : page.stages) seconds += one.seconds;
  const Machine machine = this_machine();
  page.subtitle =
      cat(machine.cpu, ", ", machine.cores, machine.cores == 1 ? " core" : " cores", ", ",
          machine.memory_bytes >> 30, " GiB. Seed ", seed, ". ", duration_text(seconds), " in all.");
  for (TableOf table : {reader.accuracies(), reader.figures(), reader.sizes()})
    if (!table.rows.empty()) page.tables.push_back(std::move(table));
  page.samples = reader.samples();
  page.runs = reader.runs();
  return recipe_html(page);
}

}  // namespace hadal
