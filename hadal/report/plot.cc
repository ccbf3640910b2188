#include "hadal/report/plot.h"

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/report/curves.h"
#include "hadal/report/page_style.h"
#include "hadal/report/summary.h"
#include "hadal/report/svg.h"

namespace hadal {
namespace {

std::string legend_html(const std::vector<RunMetrics>& runs) {
  if (runs.size() < 2) return "";
  std::string items;
  for (size_t i = 0; i < runs.size(); ++i)
    items += cat("<li><i class=c", i % 8, "></i>", escape_xml(runs[i].name), "</li>");
  return "<ul class=legend>" + items + "</ul>\n";
}

std::string notes_html(const std::vector<RunMetrics>& runs) {
  std::string items;
  for (const RunMetrics& run : runs)
    for (const std::string& note : run.notes) items += "<li>" + escape_xml(note) + "</li>";
  return items.empty() ? "" : "<ul class=notes>" + items + "</ul>\n";
}

// Runs of the same name get a number.
std::vector<RunMetrics> with_distinct_names(std::vector<RunMetrics> runs) {
  for (size_t i = 0; i < runs.size(); ++i) {
    int64_t number = 1;
    const std::string name = runs[i].name;
    for (size_t j = i + 1; j < runs.size(); ++j)
      if (runs[j].name == name) runs[j].name += cat(" (", ++number, ")");
  }
  return runs;
}

}  // namespace

std::string plot_html(const std::vector<RunMetrics>& given, const PlotOptions& options) {
  if (given.empty())
    throw Error(ErrorCode::kInvalidArgument, "[report.plot] no run: got 0, need at least 1.");
  for (const RunMetrics& run : given)
    if (options.x == PlotX::kHours && run.timings.empty() && !run.steps.empty())
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[report.plot] ", run.folder.string(),
                      ": no timing.jsonl, so hours are not known. Plot over steps."));
  const std::vector<RunMetrics> runs = with_distinct_names(given);
  std::string title = options.title;
  if (title.empty())
    for (const RunMetrics& run : runs) title += (title.empty() ? "" : ", ") + run.name;
  std::string maps = expert_loads_html(runs, options);
  if (!maps.empty()) maps = "<h2>Expert load</h2>\n" + maps;
  return page_html(
      title, legend_html(runs) + summary_html(runs) + curves_html(runs, options) + maps + notes_html(runs));
}

}  // namespace hadal
