// The report of a recipe: one HTML page about several stages of training a model, complete in itself.
#pragma once
#include <string>
#include <vector>

#include "hadal/report/metrics.h"

namespace hadal {

// What one stage took.
struct StageCost {
  std::string title;
  double seconds = 0;      // wall time
  double cpu_seconds = 0;  // of all threads
  int64_t peak_bytes = 0;  // resident memory of its largest process
};

struct TableOf {
  std::string title;
  std::vector<std::string> head;               // of the columns; the first is above the rows' names
  std::vector<std::vector<std::string>> rows;  // as many cells as head has
  std::string note;                            // below the table, may be empty
};

// One answer or text of one model.
struct SampleText {
  std::string model, text;
  int right = -1;  // 1 or 0; -1: nobody judged it
};
struct SampleBlock {
  std::string prompt;
  std::vector<SampleText> texts;  // in the order of the stages
};

struct RecipePage {
  std::string title, subtitle;  // subtitle: machine, seed, time
  std::vector<TableOf> tables;  // first on the page: accuracies, drafts, sizes
  std::vector<StageCost> stages;
  std::vector<SampleBlock> samples;
  std::vector<RunMetrics> runs;  // one section of curves each
};

// No external resources; all text is escaped; parts that are empty are left out.
std::string recipe_html(const RecipePage& page);

}  // namespace hadal
