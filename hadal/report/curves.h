// The charts of training runs, and the load of their experts, as parts of a page.
#pragma once
#include <string>
#include <vector>

#include "hadal/report/plot.h"

namespace hadal {

// Runs are drawn over each other, in colours by their order; what no run has is left out.
std::string curves_html(const std::vector<RunMetrics>& runs, const PlotOptions& options);

// A heat map for each MoE layer of each run, below a legend; "" if no run has loads.
std::string expert_loads_html(const std::vector<RunMetrics>& runs, const PlotOptions& options);

}  // namespace hadal
