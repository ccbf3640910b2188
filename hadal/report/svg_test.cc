#include "hadal/report/svg.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "hadal/report/heat_map.h"

namespace hadal {
namespace {

Series series(std::vector<double> y) {
  Series out;
  for (size_t i = 0; i < y.size(); ++i) out.add(static_cast<double>(i), y[i]);
  return out;
}
const double kNaN = std::nan("");

TEST(EscapeXml, NoTextBecomesMarkup) {
  EXPECT_EQ(escape_xml("<a href=\"x\">'&'</a>"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
  EXPECT_EQ(escape_xml("ü中😀"), "ü中😀");
  EXPECT_EQ(escape_xml(std::string("a\0b\x1b\xff", 5)), "a\uFFFDb\uFFFD\uFFFD");
}

TEST(PathData, BreaksAtWhatIsNotFiniteAndDotsLonePoints) {
  const Axis x{.low = 0, .high = 10, .length = 100}, y{.low = 0, .high = 10, .start = 100, .length = -100};
  EXPECT_EQ(path_data(series({0, 10, kNaN, 5, INFINITY, 1, 2}), x, y), "M0 100L10 0M30 50h0M50 90L60 80");
  EXPECT_EQ(path_data(series({}), x, y), "");
  EXPECT_EQ(path_data(series({kNaN}), x, y), "");
  EXPECT_EQ(unit_text(-0.04), "0");
  EXPECT_EQ(unit_text(12.34), "12.3");
  EXPECT_EQ(unit_text(-0.5), "-0.5");
}

TEST(PathData, LogarithmicAxesLeaveOutWhatIsNotAboveZero) {
  const Axis x{.low = 0, .high = 10, .length = 100},
      y{.low = 1, .high = 100, .log = true, .start = 100, .length = -100};
  EXPECT_EQ(path_data(series({1, 10, 0, -1, 100}), x, y), "M0 100L10 50M40 0h0");
}

TEST(Smoothed, IsTheMeanOfTheFiniteNeighbours) {
  EXPECT_EQ(smoothed(series({0, 3, 6, 9}), 3).y, (std::vector<double>{0, 3, 6, 7.5}));
  EXPECT_EQ(smoothed(series({0, kNaN, 6, 6}), 3).y[1], 3);
  EXPECT_TRUE(std::isnan(smoothed(series({kNaN, kNaN, kNaN}), 3).y[1]));
  EXPECT_EQ(smoothed(series({1, 2}), 1).y, (std::vector<double>{1, 2}));
  EXPECT_EQ(smoothed(series({}), 5).size(), 0u);
}

TEST(Thinned, KeepsEverySpikeInOrderWithinTheBudget) {
  Series many;
  for (int i = 0; i < 100'000; ++i) many.add(i, i == 31'337 ? 50 : i == 77'777 ? -50 : i % 7);
  const Series few = thinned(many, 0, 100'000, 500);
  EXPECT_LE(few.size(), 1000u);
  EXPECT_EQ(*std::max_element(few.y.begin(), few.y.end()), 50);
  EXPECT_EQ(*std::min_element(few.y.begin(), few.y.end()), -50);
  EXPECT_TRUE(std::is_sorted(few.x.begin(), few.x.end()));
}

TEST(Thinned, KeepsGapsOfNaN) {
  Series many;
  for (int i = 0; i < 10'000; ++i) many.add(i, i >= 4000 && i < 6000 ? kNaN : 1);
  const Series few = thinned(many, 0, 10'000, 100);
  size_t missing = 0;
  for (const double y : few.y) missing += std::isnan(y);
  EXPECT_EQ(missing, 20u);
  EXPECT_EQ(thinned(series({1, kNaN, 2}), 0, 2, 100).size(), 3u);
}

TEST(Png, OnePixelHasTheBytesOfTheFormat) {
  // Pixel 1 of a palette of two; checked against a decoder when it was written.
  const std::vector<uint8_t> pixels = {1};
  const PngText png = png_uri(pixels, 1, 1, {{0, 0, 0, 0}, {255, 128, 0, 255}});
  EXPECT_EQ(png.uri,
            "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAMAAAAoyzS7AAAABlBMVEUAAAD/"
            "gAAgfBVpAAAAAnRSTlMA/1uRIrUAAAANSURB"
            "VHgBAQIA/f8AAQADAALbrh/vAAAAAElFTkSuQmCC");
}

TEST(HeatLevel, IsSymmetricInTheLogarithm) {
  EXPECT_EQ(heat_level(10, 10), 32);
  EXPECT_EQ(heat_level(40, 10), 63);
  EXPECT_EQ(heat_level(4000, 10), 63);
  EXPECT_EQ(heat_level(2.5, 10), 1);
  EXPECT_EQ(heat_level(0.001, 10), 1);
  EXPECT_EQ(heat_level(20, 10) - 32, 32 - heat_level(5, 10));
  EXPECT_EQ(heat_level(0, 10), 0);
  EXPECT_EQ(heat_level(0, 0), kNoTokens);
}

TEST(HeatLevels, ColumnsSumTheirRecordsAndEmptyOnesShowTheNext) {
  LoadHistory history;
  history.x = {1, 2, 8, 10};
  history.load = {{0, 4}, {4, 0}, {0, 4}, {2, 2}};
  // Columns (0, 2], (2, 4], (4, 6], (6, 8], (8, 10]: records 0+1, next is 2, 2, 2, 3.
  const std::vector<uint8_t> cells = heat_levels(history, 0, 10, 5);
  const uint8_t twice = heat_level(4, 2);
  EXPECT_EQ(cells, (std::vector<uint8_t>{32, 0, 0, 0, 32, 32, twice, twice, twice, 32}));
}

TEST(HeatLevels, BehindTheLastRecordAndWithOtherExpertsThereAreNoTokens) {
  LoadHistory history;
  history.x = {1, 2};
  history.load = {{1, 1}, {1, 1, 1}};
  EXPECT_EQ(heat_levels(history, 0, 3, 3),
            (std::vector<uint8_t>{32, kNoTokens, kNoTokens, 32, kNoTokens, kNoTokens}));
  EXPECT_EQ(heat_map_html(LoadHistory{}, 0, 1, "step"), "");
}

}  // namespace
}  // namespace hadal
