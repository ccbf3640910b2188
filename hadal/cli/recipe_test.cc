#include "hadal/cli/recipe.h"

#include <gtest/gtest.h>

#include "hadal/base/file.h"
#include "hadal/error.h"
#include "tests/support/error_of.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

const RecipeInputs kInputs{.out = "/a b/out", .seed = 7, .threads = 2, .minutes = 4};

Recipe recipe_of(const std::string& stages, const RecipeInputs& inputs = kInputs) {
  return parse_recipe("title = \"t\"\nmodel = \"s\"\nminutes = 2.0\n" + stages, "r.toml", inputs);
}

std::string refusal_of(const std::string& stages) {
  return error_of([&] { recipe_of(stages); });
}

const std::string kStage = R"(
[[stage]]
name = "s"
title = "S"
minutes = 1.5
run = ["train --out {out}/s --data {data} --minutes {minutes} --seed {seed} --threads {threads} > {out}/log"]
)";

TEST(Recipe, WordsAreFilledInAfterTheyAreCutAndMinutesAreScaled) {
  const Recipe recipe = recipe_of(kStage);
  ASSERT_EQ(recipe.stages.size(), 1u);
  const RecipeCommand& command = recipe.stages[0].commands.at(0);
  EXPECT_EQ(command.arguments,
            (std::vector<std::string>{"train", "--out", "/a b/out/s", "--data", "/a b/out/text.txt",
                                      "--minutes", "3", "--seed", "7", "--threads", "2"}));
  EXPECT_EQ(command.out, "/a b/out/log");
  EXPECT_EQ(recipe.minutes(), 3);
}

TEST(Recipe, WithTheUsersTextTheStageThatMakesOneIsLeftOut) {
  RecipeInputs inputs = kInputs;
  inputs.data = "my text.txt";
  const std::string text =
      "\n[[stage]]\nname = \"text\"\ntitle = \"x\"\nwithout_data = true\nrun = [\"data stories\"]\n";
  EXPECT_EQ(recipe_of(text + kStage).stages.size(), 2u);
  const Recipe recipe = recipe_of(text + kStage, inputs);
  ASSERT_EQ(recipe.stages.size(), 1u);
  EXPECT_EQ(recipe.stages[0].commands[0].arguments[4], "my text.txt");
}

TEST(Recipe, ErrorsNameTheFileAndWhatIsWrong) {
  EXPECT_NE(refusal_of("").find("r.toml: it has no [[stage]]"), std::string::npos);
  EXPECT_NE(refusal_of(kStage + kStage).find("two stages s"), std::string::npos);
  EXPECT_NE(refusal_of("[[stage]]\nname = \"s\"\n").find("a text title is missing"), std::string::npos);
  EXPECT_NE(refusal_of("[[stage]]\nname = \"s\"\ntitle = \"s\"\nrun = [\"x {outt}\"]\n")
                .find("\"{outt}\": need {out}"),
            std::string::npos);
  EXPECT_NE(
      refusal_of("[[stage]]\nname = \"s\"\ntitle = \"s\"\nrun = [\"x >\"]\n").find("the command \"x >\""),
      std::string::npos);
  EXPECT_NE(refusal_of("[[stage\n").find("r.toml line 4"), std::string::npos);
}

TEST(Recipe, TheBuiltInOneIsReadAndItsReportNamesWhatItMakes) {
  const Recipe recipe = parse_recipe(kQuickstartRecipe, "runs/quickstart.toml", {.out = "o"});
  EXPECT_EQ(std::string(kQuickstartRecipe), read_file("runs/quickstart.toml"));
  for (const std::string& model : recipe.report.models) {
    bool made = false;
    for (const RecipeStage& stage : recipe.stages)
      for (const RecipeCommand& command : stage.commands)
        for (const std::string& word : command.arguments) made |= word == "o/" + model;
    EXPECT_TRUE(made) << model;
  }
}

TEST(Recipe, StagesAreReadAsTheyWereWritten) {
  const TemporaryFolder folder;
  EXPECT_TRUE(read_stages(folder.path()).empty());
  write_file(
      folder / "stages.jsonl",
      R"({"stage":"s","title":"S","commands":["hadal x"],"seconds":1.5,"cpu_seconds":2,"peak_bytes":7,"done":true})"
      "\n");
  const auto stages = read_stages(folder.path());
  ASSERT_EQ(stages.size(), 1u);
  EXPECT_EQ(stages[0].commands, std::vector<std::string>{"hadal x"});
  EXPECT_EQ(stages[0].peak_bytes, 7);
  EXPECT_TRUE(stages[0].done);
}

TEST(Recipe, AReportIsMadeOfWhatIsThere) {
  const TemporaryFolder folder;
  const Recipe recipe = recipe_of(kStage + R"(
[report]
runs = []
models = ["a", "b"]
tasks = [{ name = "sum", title = "sums", questions = "q.jsonl" }]
)");
  std::filesystem::create_directories(folder / "eval");
  write_file(folder / "q.jsonl", R"({"id":"1","prompt":"1+1=","verifier":"math","answer":"2"})"
                                 "\n");
  for (const auto& [model, right] : {std::pair{"a", 0}, {"b", 1}})
    write_file(folder / "eval" / (std::string(model) + "-sum.jsonl"),
               "{\"id\":\"1\",\"answer\":\"2\",\"samples\":[{\"text\":\"" + std::string(model) +
                   "!\",\"right\":" + std::to_string(right) + ",\"class\":0}]}\n");
  const std::string html = recipe_report_html(recipe, folder.path(), 3);
  for (const char* part : {"sums, greedy</th><td>0.0 ± ", "<td>100.0 ± ", "<pre>1+1=</pre>",
                           "wrong</b> <pre>a!", "right</b> <pre>b!", "Seed 3"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
}

}  // namespace
}  // namespace hadal
