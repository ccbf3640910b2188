// The table at the head of the page: one column per run, one row per fact.
#pragma once
#include <string>
#include <vector>

#include "hadal/report/metrics.h"

namespace hadal {

// 3 725 -> "1 h 2 min", 59.4 -> "59 s"
std::string duration_text(double seconds);

// Facts that no run states are left out.
std::string summary_html(const std::vector<RunMetrics>& runs);

}  // namespace hadal
