#include "hadal/report/plot.h"

#include <algorithm>
#include <filesystem>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/error.h"
#include "hadal/report/evaluation_page.h"

namespace hadal {
namespace {

bool is_evaluation(const std::string& path) {
  return std::filesystem::path(path).extension() == ".json";
}

std::string evaluations_page(const PlotCommandOptions& options) {
  std::vector<EvaluationFile> evaluations;
  for (const std::string& file : options.runs) {
    if (!is_evaluation(file))
      throw Error(
          ErrorCode::kInvalidArgument,
          cat("[cli.plot] ", file,
              " is a run beside evaluations. Give runs alone, or files that hadal eval --json wrote alone."));
    evaluations.push_back(read_evaluation(file));
  }
  return evaluations_html(evaluations, options.title.empty() ? "Evaluations" : options.title);
}

}  // namespace

int run_plot(const PlotCommandOptions& options) {
  if (std::any_of(options.runs.begin(), options.runs.end(), is_evaluation)) {
    write_file(options.out, evaluations_page(options));
    return 0;
  }
  std::vector<RunMetrics> runs;
  for (const std::string& run : options.runs) runs.push_back(read_run(run));
  PlotOptions plot;
  plot.x = options.x == "tokens" ? PlotX::kTokens : options.x == "hours" ? PlotX::kHours : PlotX::kStep;
  plot.log_loss = options.log_loss;
  plot.smooth = options.smooth;
  plot.title = options.title;
  plot.only = options.only;
  write_file(options.out, plot_html(runs, plot));
  return 0;
}

}  // namespace hadal
