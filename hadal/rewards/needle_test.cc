#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/rewards/reward.h"
#include "hadal/rewards/task.h"
#include "hadal/rewards/task_maker.h"

namespace hadal {
namespace {
std::vector<Json> needles(int64_t level, int64_t count = 60, uint64_t seed = 1) {
  return make_demonstrations(task_kind("needle"), {.count = count, .seed = seed, .level = level});
}

// Words and full stops, each a token of its own.
std::vector<std::string> tokens_of(const std::string& text) {
  std::vector<std::string> tokens;
  std::istringstream in(text);
  for (std::string word; in >> word;) {
    const bool stop = word.ends_with('.');
    if (stop) word.pop_back();
    tokens.push_back(word);
    if (stop) tokens.emplace_back(".");
  }
  return tokens;
}

bool is_topic(const std::string& token) {
  return std::isupper(static_cast<unsigned char>(token[0])) && token != "The";
}

// Where "topic value." stands.
std::vector<int64_t> facts_about(const std::vector<std::string>& tokens, const std::string& topic) {
  std::vector<int64_t> places;
  for (int64_t i = 0; i + 2 < std::ssize(tokens); ++i)
    if (tokens[static_cast<size_t>(i)] == topic) places.push_back(i);
  return places;
}

TEST(Needle, ATextHasExactlyAsManyTokensAsItsLevel) {
  for (const int64_t level : {16, 17, 18, 19, 20, 21, 64, 127, 1024})
    for (const Json& line : needles(level, 20)) {
      EXPECT_EQ(std::ssize(tokens_of(line["text"])), level) << line["text"];
      EXPECT_EQ(line["length"], level);
    }
}

TEST(Needle, TheFactAskedForStandsOnceAtItsDepthAndHasTheAnswer) {
  for (const int64_t level : {64, 512}) {
    std::set<int64_t> depths;
    for (const Json& line : needles(level)) {
      const auto tokens = tokens_of(line["prompt"]);
      const auto places = facts_about(tokens, tokens.back());
      ASSERT_EQ(places.size(), 1u) << line["prompt"];
      EXPECT_EQ(tokens[static_cast<size_t>(places[0] + 1)], line["answer"]);
      const int64_t depth = line["depth"], haystack = level - 5;
      // Half of the longest sentence off at most.
      EXPECT_LE(std::abs(static_cast<double>(places[0]) - 0.01 * static_cast<double>(depth * haystack)), 4)
          << line["prompt"];
      depths.insert(depth);
    }
    EXPECT_EQ(depths.size(), 11u);
    EXPECT_EQ(*depths.rbegin(), 100);
  }
}

TEST(Needle, ATopicHasOneWordInAText) {
  for (const Json& line : needles(512, 20)) {
    const auto tokens = tokens_of(line["prompt"]);
    std::map<std::string, std::string> values;
    int64_t repeated = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      if (!is_topic(tokens[i])) continue;
      const auto [at, first] = values.emplace(tokens[i], tokens[i + 1]);
      EXPECT_EQ(at->second, tokens[i + 1]) << line["prompt"];
      repeated += !first;
    }
    EXPECT_GT(repeated, 4);  // what a text teaches, beside its last word
  }
}

TEST(Needle, ADemonstrationIsTheTextThatGoesOnWithTheAnswer) {
  const RewardSet judge = reward_set({R"({"name": "accuracy", "profile": "evaluation"})"});
  for (const Json& line : needles(64, 20)) {
    const std::string completion = line["completion"], prompt = line["prompt"];
    EXPECT_EQ(completion, " " + line["answer"].get<std::string>());
    EXPECT_EQ(line["text"], prompt + completion);
    const Task task = parse_task(line.dump(), "made");
    EXPECT_EQ(judge.score(task, completion).total, 1);
    EXPECT_EQ(judge.score(task, completion + "s").total, 0);
  }
}

TEST(Needle, LevelsWithoutRoomAndPreferencesAreRefused) {
  const auto error_of = [](const auto& work) -> std::string {
    try {
      work();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  const std::string level = error_of([] { needles(15); });
  EXPECT_NE(level.find("--level is 15, needle has levels 16 to 131072"), std::string::npos) << level;
  const std::string pairs = error_of([] { make_preferences(task_kind("needle"), {.count = 1}); });
  EXPECT_NE(pairs.find("no preferences for needle: its answers are one word"), std::string::npos) << pairs;
}

}  // namespace
}  // namespace hadal
