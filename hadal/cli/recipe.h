// A recipe: stages of training a model, each one or more commands of hadal, as a TOML file states them.
//
//   title = "..."
//   model = "sft"                 # is served at the end
//   minutes = 8.0                 # what the stages' minutes add up to; --minutes N scales them
//   [[stage]]
//   name = "sft"                  # of the stage, once
//   title = "fine-tuning on worked answers"
//   minutes = 1.5                 # expected; commands get it, scaled, as {minutes}
//   run = ["sft {out}/pretrain --data {out}/demos.jsonl --out {out}/sft --minutes {minutes}",
//          "eval {out}/sft --task {out}/held.jsonl > {out}/sft.txt"]     # "> FILE": its stdout
//   without_data = true           # left out where the user gives the text
//
// {out}, {data}, {seed}, {threads} and {minutes} are filled in after the command is cut at blanks.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "hadal/base/json.h"

namespace hadal {

struct RecipeCommand {
  std::vector<std::string> arguments;
  std::string out;  // file for its stdout; "": ours
};

struct RecipeStage {
  std::string name, title;
  double minutes = 0;
  bool scales = false;  // a command says {minutes}
  std::vector<RecipeCommand> commands;
};

// What the report shows; all paths are below the recipe's folder.
struct RecipeReport {
  std::vector<std::string> runs;    // run folders: curves
  std::vector<std::string> models;  // model folders: columns of the accuracies, in the order of the stages
  struct TaskSet {
    std::string name, title;
    std::string questions;  // JSONL; answers: eval/MODEL-NAME.jsonl, eval/MODEL-NAME-sampled.jsonl
  };
  std::vector<TaskSet> tasks;
  std::string text_prompt;  // that texts/MODEL.txt go on from
  std::string drafts;       // JSON of hadal bench spec
  std::string reward;       // reward model's folder
};

struct Recipe {
  std::string title;
  std::string model;  // folder of the model that is served at the end, below the recipe's
  std::vector<RecipeStage> stages;
  RecipeReport report;
  double minutes() const;  // of all stages
};

struct RecipeInputs {
  std::filesystem::path out;
  std::string data;  // "": the recipe's own text
  uint64_t seed = 0;
  int64_t threads = 0;
  double minutes = 0;  // 0: as the recipe says
};

// Throws invalid_config: `source` and what is wrong.
Recipe parse_recipe(const std::string& toml, const std::string& source, const RecipeInputs& inputs);

// The recipe of hadal quickstart, runs/quickstart.toml.
extern const char* const kQuickstartRecipe;

// One line of OUT/stages.jsonl.
struct StageRecord {
  std::string stage, title;
  std::vector<std::string> commands;
  double seconds = 0, cpu_seconds = 0;
  int64_t peak_bytes = 0;
  bool done = false;  // false: it failed or was stopped; its time counts all the same
};
// The lines of a JSONL file; none where there is no file. Throws corrupt naming the file.
std::vector<Json> read_json_lines(const std::filesystem::path& file);
std::vector<StageRecord> read_stages(const std::filesystem::path& folder);

// Runs the stages that OUT/stages.jsonl does not call done, says which and how long the rest takes. Returns
// 0, or the exit code of the command that failed or was stopped; the same call goes on there. Throws
// invalid_argument if a stage was done with other commands.
int run_recipe(const Recipe& recipe, const RecipeInputs& inputs);

// The page about what lies in `folder`, as far as it is there.
std::string recipe_report_html(const Recipe& recipe, const std::filesystem::path& folder, uint64_t seed);

}  // namespace hadal
