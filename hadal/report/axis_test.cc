#include "hadal/report/axis.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace hadal {
namespace {

std::vector<std::string> labels(const std::vector<Tick>& ticks) {
  std::vector<std::string> out;
  for (const Tick& tick : ticks) out.push_back(tick.label);
  return out;
}
using Labels = std::vector<std::string>;

TEST(ShortNumber, KeepsThreeDigitsAndAUnit) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(1.25), "1.25");
  EXPECT_EQ(short_number(3776), "3776");
  EXPECT_EQ(short_number(12'000), "12k");
  EXPECT_EQ(short_number(26'840'000), "26.8M");
  EXPECT_EQ(short_number(671e9), "671G");
  EXPECT_EQ(short_number(3e-4), "3e-4");
  EXPECT_EQ(short_number(2.2e-5), "2.2e-5");
  EXPECT_EQ(short_number(-0.5), "-0.5");
  EXPECT_EQ(short_number(std::nan("")), "NaN");
  EXPECT_EQ(short_number(INFINITY), "∞");
}

TEST(Ticks, AreRoundNumbersInOneForm) {
  EXPECT_EQ(labels(linear_ticks(0, 100'000, 5)), (Labels{"0", "20k", "40k", "60k", "80k", "100k"}));
  EXPECT_EQ(labels(linear_ticks(1.47, 4.6, 5)), (Labels{"2", "3", "4"}));
  EXPECT_EQ(labels(linear_ticks(0, 3.1e-4, 5)), (Labels{"0", "1e-4", "2e-4", "3e-4"}));
  EXPECT_EQ(labels(linear_ticks(-1, 1, 4)), (Labels{"-1.0", "-0.5", "0", "0.5", "1.0"}));
  EXPECT_EQ(labels(log_ticks(0.3, 30, 5)), (Labels{"0.5", "1", "2", "5", "10", "20"}));
  EXPECT_EQ(labels(log_ticks(1e-8, 1, 5)), (Labels{"1e-8", "1e-6", "1e-4", "0.01", "1"}));
}

TEST(Ticks, OfAnyRangeAreInsideItAndHaveDistinctLabels) {
  for (int power = -12; power <= 12; ++power)
    for (const double low : {0.0, 1.0, 1.37, -3.3, 9.99})
      for (const double width : {1.0, 0.013, 2.7, 77.0}) {
        const double scale = std::pow(10, power), from = low * scale, to = (low + width) * scale;
        const auto ticks = linear_ticks(from, to, 5);
        EXPECT_GE(ticks.size(), 2u) << from << " " << to;
        EXPECT_LE(ticks.size(), 7u) << from << " " << to;
        std::set<std::string> distinct;
        for (const Tick& tick : ticks) {
          EXPECT_GE(tick.value, from - (to - from) * 1e-6);
          EXPECT_LE(tick.value, to + (to - from) * 1e-6);
          distinct.insert(tick.label);
        }
        EXPECT_EQ(distinct.size(), ticks.size()) << from << " " << to;
      }
}

TEST(Axis, OneValueOrNoneStillHasAWidth) {
  for (const auto& [low, high] : {std::pair{0.0, 0.0},
                                  {5.0, 5.0},
                                  {-5.0, -5.0},
                                  {1e-30, 1e-30},
                                  {INFINITY, -INFINITY},
                                  {std::nan(""), 1.0},
                                  {1e300, 1e300}})
    for (const bool log : {false, true})
      for (const bool from_zero : {false, true}) {
        Axis axis{.log = log};
        set_range(axis, low, high, from_zero);
        EXPECT_LT(axis.low, axis.high) << low << " " << high;
        EXPECT_TRUE(std::isfinite(axis.place(axis.low))) << low;
        EXPECT_FALSE(axis.ticks(5).empty()) << low << " " << high << " " << log << from_zero;
        EXPECT_TRUE(!axis.log || axis.low > 0);
      }
}

TEST(Axis, ALogarithmicOneTurnsLinearForValuesNotAboveZero) {
  Axis axis{.log = true};
  set_range(axis, 0, 10, false);
  EXPECT_FALSE(axis.log);
}

}  // namespace
}  // namespace hadal
