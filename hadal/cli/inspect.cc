#include "hadal/checkpoint.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"

namespace hadal {

int run_inspect(const InspectOptions& options) {
  const CheckpointReport report = inspect(options.path);
  std::string text = options.json ? report_json(report) : report_text(report);
  if (!text.empty() && text.back() != '\n') text += '\n';
  print(text);
  flush_output();
  if (report.problems.empty()) return 0;
  // The report has them all; the error is what a script sees, with the exit code of a bad file.
  const size_t others = report.problems.size() - 1;
  throw Error(ErrorCode::kCorrupt,
              report.problems[0] + (others ? " (and " + std::to_string(others) + " more problems)" : ""));
}

}  // namespace hadal
