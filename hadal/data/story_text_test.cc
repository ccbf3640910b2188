#include <gtest/gtest.h>

#include <set>

#include "hadal/base/text.h"
#include "hadal/data/story_text.h"

namespace hadal {
namespace {

TEST(StoryText, SameSeedGivesTheSameTextAndAnotherSeedAnotherOne) {
  EXPECT_EQ(story_text(1, 5000), story_text(1, 5000));
  EXPECT_NE(story_text(1, 5000), story_text(2, 5000));
}

TEST(StoryText, LongerTextContinuesTheShorterOne) {
  const std::string short_text = story_text(7, 1000);
  EXPECT_EQ(story_text(7, 4000).substr(0, short_text.size()), short_text);
}

TEST(StoryText, StoriesSeldomRepeat) {
  std::set<std::string> seen;
  for (uint64_t i = 0; i < 1000; ++i) seen.insert(story(3, i));
  EXPECT_GT(seen.size(), 950u);
}

TEST(StoryText, EverySumIsRight) {
  int sums = 0;
  for (uint64_t i = 0; i < 500; ++i) {
    const std::string text = story(5, i);
    const size_t plus = text.find(" + ");
    if (plus == std::string::npos) continue;
    const size_t begin = text.rfind(' ', plus - 1) + 1, equals = text.find(" = ", plus);
    EXPECT_EQ(std::stoi(text.substr(begin)) + std::stoi(text.substr(plus + 3)),
              std::stoi(text.substr(equals + 3)))
        << text;
    ++sums;
  }
  EXPECT_GT(sums, 20);
}

}  // namespace
}  // namespace hadal
