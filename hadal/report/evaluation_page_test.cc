#include "hadal/report/evaluation_page.h"

#include <gtest/gtest.h>

#include "hadal/base/file.h"
#include "tests/support/error_of.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

constexpr const char* kTasks =
    R"({"by": {"columns": ["length", "depth"], "groups": [
        {"values": [64, 0], "tasks": 1, "mean": 1.0, "error": 0}, {"values": [64, 50], "tasks": 3, "mean": 0.5},
        {"values": [512, 50], "tasks": 2, "mean": 0.25}]}})";

class EvaluationPage : public ::testing::Test {
 protected:
  EvaluationFile read(const std::string& name, const std::string& content) {
    write_file(folder_ / name, content);
    return read_evaluation(folder_ / name);
  }
  TemporaryFolder folder_;
};

TEST_F(EvaluationPage, AnswersAreWeighedByTasksAndDrawnByBothColumns) {
  const std::string page = evaluations_html({read("yarn.json", kTasks)}, "Needles");
  for (const char* title : {"Right answers by length, %", "Right answers by depth, length 64, %",
                            "Right answers by depth, length 512, %"})
    EXPECT_NE(page.find(title), std::string::npos) << title;
  EXPECT_NE(page.find(R"("x":[64,512],"y":[62.5,25])"), std::string::npos) << page;  // (1 + 3 / 2) / 4
  EXPECT_NE(page.find(R"("x":[0,50],"y":[100,50])"), std::string::npos);
  EXPECT_EQ(page.find("Loss by position"), std::string::npos);
}

TEST_F(EvaluationPage, LossStandsInTheMiddleOfItsPositionsAndNamesShareAColour) {
  const std::string loss =
      R"({"positions": [{"begin": 0, "end": 8, "loss": 2.5}, {"begin": 8, "end": 16, "loss": 2}]})";
  const std::string page =
      evaluations_html({read("a.json", kTasks), read("b.json", loss), read("a.json", loss)}, "t");
  EXPECT_NE(page.find(R"({"name":"b","c":1,"x":[4,12],"y":[2.5,2]})"), std::string::npos) << page;
  EXPECT_NE(page.find(R"({"name":"a","c":0,"x":[4,12],"y":[2.5,2]})"), std::string::npos) << page;
}

TEST_F(EvaluationPage, WhatIsNoEvaluationSaysWhy) {
  const auto says = [&](const char* content, const char* part) {
    const std::string error = error_of([&] { read("e.json", content); });
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_NE(error.find("e.json"), std::string::npos) << error;
  };
  says(R"({"loss": 2})", "neither \"by\" nor \"positions\"");
  says(R"({"positions": [{"begin": 0, "loss": 1}]})", "\"end\" is missing");
  says(R"({"by": {"columns": ["depth"], "groups": [{"values": ["x"], "tasks": 1, "mean": 1}]}})",
       "depth \"x\" has no place on an axis");
  says(R"({"by": {"columns": ["depth"], "groups": [{"values": [], "tasks": 1, "mean": 1}]}})",
       "0 values for 1");
  says("[", "byte");
}

TEST_F(EvaluationPage, EvaluationsByDifferentColumnsAreNotDrawnTogether) {
  const EvaluationFile a = read("a.json", kTasks),
                       b = read("b.json", R"({"by": {"columns": ["depth"], "groups": []}})");
  const std::string error = error_of([&] { evaluations_html({a, b}, "t"); });
  EXPECT_NE(error.find("Evaluate all with the same --by"), std::string::npos) << error;
}

}  // namespace
}  // namespace hadal
