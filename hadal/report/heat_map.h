// Expert load over time: one row per expert, one column per stretch of the run.
#pragma once
#include <string>
#include <vector>

#include "hadal/report/metrics.h"

namespace hadal {

// The loads of one layer of one run.
struct LoadHistory {
  std::string title;
  std::vector<double> x;                   // [records] where each record ends; ascending
  std::vector<std::vector<int64_t>> load;  // [records][E]
};

// Colour of load / mean: 0 for an expert without tokens, 1..63 for log2 of the ratio from -2 to 2, 32 at
// balance; 64 where the layer had no tokens at all.
constexpr uint8_t kNoTokens = 64;
uint8_t heat_level(double load, double mean);

// One byte per cell, experts downwards, of `columns` equal parts of [low, high]. A part without a record of
// its own shows the next one's, which covers it. Records of another number of experts than the first are left
// out.
std::vector<uint8_t> heat_levels(const LoadHistory& history, double low, double high, size_t columns);

// <figure>...</figure>; x axis from low to high.
std::string heat_map_html(const LoadHistory& history, double low, double high, const std::string& x_label);

// The colour scale, once a page.
std::string heat_legend_html();

}  // namespace hadal
