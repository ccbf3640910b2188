#include "hadal/report/plot.h"

#include "hadal/base/file.h"
#include "hadal/cli/command_line.h"

namespace hadal {

int run_plot(const PlotCommandOptions& options) {
  std::vector<RunMetrics> runs;
  for (const std::string& run : options.runs) runs.push_back(read_run(run));
  PlotOptions plot;
  plot.x = options.x == "tokens" ? PlotX::kTokens : options.x == "hours" ? PlotX::kHours : PlotX::kStep;
  plot.log_loss = options.log_loss;
  plot.smooth = options.smooth;
  plot.title = options.title;
  write_file(options.out, plot_html(runs, plot));
  return 0;
}

}  // namespace hadal
