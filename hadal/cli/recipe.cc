#include "hadal/cli/recipe.h"

#include <toml++/toml.h>
#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

class RecipeReader {
 public:
  RecipeReader(const std::string& source, const RecipeInputs& inputs) : source_(source), inputs_(inputs) {}

  Recipe read(const toml::table& table) {
    Recipe recipe;
    recipe.title = text(table, "title");
    recipe.model = text(table, "model");
    const double minutes = table["minutes"].value_or(0.0);
    if (!(minutes > 0)) fail("minutes is not a number above 0");
    scale_ = inputs_.minutes > 0 ? inputs_.minutes / minutes : 1;
    for (const toml::table* one : tables(table, "stage")) {
      if (one->contains("without_data") && !inputs_.data.empty()) continue;
      recipe.stages.push_back(stage(*one));
    }
    if (recipe.stages.empty()) fail("it has no [[stage]]");
    if (const toml::table* report = table["report"].as_table()) recipe.report = read_report(*report);
    return recipe;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kInvalidConfig, cat("[cli.recipe] ", source_, ": ", what, "."));
  }

  std::string text(const toml::table& table, const char* key) const {
    const auto value = table[key].value<std::string>();
    if (!value) fail(cat("a text ", key, " is missing"));
    return *value;
  }

  std::vector<std::string> texts(const toml::table& table, const char* key) const {
    std::vector<std::string> out;
    const toml::array* array = table[key].as_array();
    if (!array) fail(cat("a list ", key, " is missing"));
    for (const toml::node& node : *array) {
      const auto value = node.value<std::string>();
      if (!value) fail(cat(key, " holds something that is not a text"));
      out.push_back(*value);
    }
    return out;
  }

  std::vector<const toml::table*> tables(const toml::table& table, const char* key) const {
    std::vector<const toml::table*> out;
    if (const toml::array* array = table[key].as_array())
      for (const toml::node& node : *array) {
        if (!node.as_table()) fail(cat(key, " is not a list of tables"));
        out.push_back(node.as_table());
      }
    return out;
  }

  RecipeStage stage(const toml::table& table) {
    RecipeStage stage{.name = text(table, "name"), .title = text(table, "title"), .commands = {}};
    if (!names_.insert(stage.name).second) fail(cat("there are two stages ", stage.name));
    stage.minutes = table["minutes"].value_or(0.1);
    const std::vector<std::string> run = texts(table, "run");
    stage.scales =
        std::any_of(run.begin(), run.end(), [](const auto& x) { return x.find("{minutes}") != x.npos; });
    if (stage.scales) stage.minutes *= scale_;
    for (const std::string& line : run) stage.commands.push_back(command(line, stage));
    return stage;
  }

  RecipeCommand command(const std::string& line, const RecipeStage& stage) const {
    RecipeCommand command;
    std::istringstream words(line);
    bool to_file = false;
    for (std::string word; words >> word;) {
      if (word == ">") {
        to_file = true;
      } else if (to_file) {
        command.out = filled(word, stage);
      } else {
        command.arguments.push_back(filled(word, stage));
      }
    }
    if (command.arguments.empty() || (to_file && command.out.empty()))
      fail(cat("stage ", stage.name, " has the command \"", line, "\""));
    return command;
  }

  std::string filled(std::string word, const RecipeStage& stage) const {
    const std::map<std::string, std::string> known{
        {"out", inputs_.out.string()},
        {"data", inputs_.data.empty() ? (inputs_.out / "text.txt").string() : inputs_.data},
        {"seed", std::to_string(inputs_.seed)},
        {"threads", std::to_string(inputs_.threads)},
        {"minutes", cat(stage.minutes)}};
    for (size_t at = word.find('{'); at != word.npos; at = word.find('{', at)) {
      const size_t end = word.find('}', at);
      const auto found = known.find(end == word.npos ? "" : word.substr(at + 1, end - at - 1));
      if (found == known.end())
        fail(cat("stage ", stage.name, " has \"", word, "\": need {out}, {data}, {seed}, ",
                 "{threads} or {minutes} in braces"));
      word.replace(at, end - at + 1, found->second);
      at += found->second.size();
    }
    return word;
  }

  RecipeReport read_report(const toml::table& table) const {
    RecipeReport report{.runs = texts(table, "runs"), .models = texts(table, "models"), .tasks = {}};
    for (const toml::table* one : tables(table, "tasks"))
      report.tasks.push_back({text(*one, "name"), text(*one, "title"), text(*one, "questions")});
    report.text_prompt = table["text_prompt"].value_or("");
    report.drafts = table["drafts"].value_or("");
    report.reward = table["reward"].value_or("");
    return report;
  }

  const std::string& source_;
  const RecipeInputs& inputs_;
  double scale_ = 1;
  std::set<std::string> names_;
};

}  // namespace

double Recipe::minutes() const {
  double sum = 0;
  for (const RecipeStage& stage : stages) sum += stage.minutes;
  return sum;
}

Recipe parse_recipe(const std::string& toml, const std::string& source, const RecipeInputs& inputs) {
  try {
    return RecipeReader(source, inputs).read(toml::parse(toml));
  } catch (const toml::parse_error& e) {
    throw Error(ErrorCode::kInvalidConfig,
                cat("[cli.recipe] ", source, " line ", e.source().begin.line, ": ", e.description(), "."));
  }
}

}  // namespace hadal
