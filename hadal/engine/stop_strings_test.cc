#include "hadal/engine/stop_strings.h"

#include <gtest/gtest.h>

#include "hadal/base/random.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// The definition: the shortest prefix of the text that ends with a stop string, less the longest such stop.
std::string cut_naively(const std::string& text, const std::vector<std::string>& stops,
                        std::string* matched) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string best;
    for (const std::string& stop : stops)
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          stop.size() > best.size())
        best = stop;
    if (!best.empty()) return *matched = best, text.substr(0, end - best.size());
  }
  return text;
}

TEST(StopStrings, StreamEqualsNaiveSearchForAnyCutOfTheText) {
  for (uint64_t round = 0; round < 20'000; ++round) {
    uint64_t draws = 0;
    const auto below = [&](uint64_t n) { return philox(17, round, draws++)[0] % n; };
    const auto word = [&](uint64_t longest) {
      std::string text(1 + below(longest), 'a');
      for (char& c : text) c = static_cast<char>('a' + below(2));
      return text;
    };
    std::vector<std::string> stops(1 + below(3));
    for (std::string& stop : stops) stop = word(6);
    const std::string text = word(40);

    std::string want_match, got, trace;
    const std::string want = cut_naively(text, stops, &want_match);
    StopStrings stream(stops);
    for (size_t at = 0; at < text.size();) {
      const size_t size = std::min<size_t>(text.size() - at, 1 + below(4));
      got += stream.push(text.substr(at, size));
      ASSERT_EQ(got, want.substr(0, got.size())) << "round " << round << ": more came out than may be shown";
      at += size;
    }
    EXPECT_EQ(stream.stopped(), !want_match.empty()) << "round " << round;
    EXPECT_EQ(stream.matched(), want_match) << "round " << round;
    got += stream.finish();
    ASSERT_EQ(got, want) << "round " << round << " text " << text << " first stop " << stops[0];
  }
}

TEST(StopStrings, OnlyAPossibleBeginningIsHeldBack) {
  StopStrings stream({"###", "\nUser:"});
  EXPECT_EQ(stream.push("one ##"), "one ");
  EXPECT_EQ(stream.push("two"), "##two");
  EXPECT_EQ(stream.push("\nUs"), "");
  EXPECT_EQ(stream.push("ers\nUser"), "\nUsers");
  EXPECT_EQ(stream.push(": hi"), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.matched(), "\nUser:");
  EXPECT_EQ(stream.push("more"), "");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StopStrings, WithoutStopsEverythingPassesAtOnce) {
  StopStrings stream;
  EXPECT_EQ(stream.push("text"), "text");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_FALSE(stream.stopped());
}

TEST(StopStrings, AnEmptyStopStringIsRefused) {
  EXPECT_THROW(StopStrings({"a", ""}), Error);
}

}  // namespace
}  // namespace hadal
