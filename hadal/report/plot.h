// `hadal plot`: one HTML page, complete in itself, about one or several training runs.
#pragma once
#include <string>
#include <vector>

#include "hadal/report/metrics.h"

namespace hadal {

enum class PlotX { kStep, kTokens, kHours };

struct PlotOptions {
  PlotX x = PlotX::kStep;
  bool log_loss = false;
  int64_t smooth = 0;  // points in a smoothed line's window; 0: a hundredth of the run; 1: no smoothing
  std::string title;   // "": the names of the runs
  std::vector<std::string> only;  // charts whose titles contain one of these, in either case; empty: all
};

// The page: summary table; loss and held-out loss, learning rate, gradient norm, throughput, MFU, MaxVio, MTP
// loss and acceptance, bits per byte; expert load per MoE layer over time. What no run has is left out. No
// external resources; text of the runs is escaped. Throws invalid_argument: no run; kHours and a run without
// timing.jsonl.
std::string plot_html(const std::vector<RunMetrics>& runs, const PlotOptions& options);

}  // namespace hadal
