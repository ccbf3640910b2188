// Curves of evaluations: right answers by columns of the tasks, loss by position.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "hadal/report/series.h"

namespace hadal {

// The tasks that share the values of some columns.
struct TaskGroup {
  std::vector<double> values;  // beside EvaluationFile::columns
  int64_t tasks = 0;
  double mean = 0;  // share of right answers
};

// One file that `hadal eval --json` wrote.
struct EvaluationFile {
  std::string name;                  // the file's, without folder and ending
  std::vector<std::string> columns;  // of --by; empty: none
  std::vector<TaskGroup> groups;
  Series positions;  // of --positions: loss at the middle of each range
};

// Throws not_found, corrupt, and invalid_argument "[report.evaluation] FILE: ..." if there is nothing to
// draw.
EvaluationFile read_evaluation(const std::filesystem::path& file);

// The page, complete in itself: right answers by the first column, by the second one for each value of the
// first, and loss by position. Evaluations of one name share a colour. Throws invalid_argument for
// evaluations by different columns.
std::string evaluations_html(const std::vector<EvaluationFile>& evaluations, const std::string& title);

}  // namespace hadal
