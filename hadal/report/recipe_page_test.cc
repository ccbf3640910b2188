#include "hadal/report/recipe_page.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(RecipePage, SaysWhatItIsGivenAndLeavesOutWhatItIsNot) {
  RecipePage page{.title = "T<1>", .subtitle = "seed 7"};
  page.tables.push_back({"Right", {"Task", "a", "b"}, {{"sums", "1 %", "2 %"}}, "a note"});
  page.stages = {{"text", 3, 2, int64_t{5} << 20}, {"training", 60, 100, int64_t{9} << 20}};
  page.samples.push_back({"1+1=", {{"a", "3", 0}, {"b", "2", 1}, {"c", "<b>", -1}}});
  const std::string html = recipe_html(page);
  for (const char* part :
       {"<h1>T&lt;1&gt;</h1>", "seed 7", "<th scope=row>sums</th><td>1 %</td><td>2 %</td>", "a note",
        "<th scope=row>all</th><td>1 min 3 s</td><td>1 min 42 s</td><td>9 MiB</td>",
        "<b class=c6>wrong</b> <pre>3</pre>", "<b class=c2>right</b> <pre>2</pre>",
        "<td><pre>&lt;b&gt;</pre>"})
    EXPECT_TRUE(has(html, part)) << part;
  const std::string empty = recipe_html({.title = "x"});
  for (const char* part : {"<table", "What the models say", "Stage:"}) EXPECT_FALSE(has(empty, part)) << part;
}

TEST(RecipePage, EachRunHasItsCurvesAndItsExperts) {
  RunMetrics run;
  run.name = "sft";
  for (int64_t step = 1; step <= 4; ++step) {
    run.steps.push_back({.step = step, .tokens = step, .loss = 1, .lr = 1});
    run.loads.push_back({step, {{1, {1, 2}}}});
  }
  const std::string html = recipe_html({.title = "x", .runs = {run}});
  EXPECT_TRUE(has(html, "<h2>Stage: sft</h2>"));
  EXPECT_TRUE(has(html, "<figure"));
  EXPECT_TRUE(has(html, "Load of the experts"));
}

}  // namespace
}  // namespace hadal
