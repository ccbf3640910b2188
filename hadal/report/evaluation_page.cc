#include "hadal/report/evaluation_page.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/report/axis.h"
#include "hadal/report/chart.h"
#include "hadal/report/page_style.h"
#include "hadal/report/svg.h"

namespace hadal {
namespace {

[[noreturn]] void refuse(const std::string& file, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, cat("[report.evaluation] ", file, ": ", what));
}

double number(const Json& object, const char* key, const std::string& file) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_number())
    refuse(file, cat("\"", key, "\" is missing or no number. Write the file with hadal eval --json."));
  return object[key].get<double>();
}

const Json& list(const Json& object, const char* key, const std::string& file) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_array())
    refuse(file, cat("\"", key, "\" is missing or no list. Write the file with hadal eval --json."));
  return object[key];
}

void read_groups(const Json& by, const std::string& file, EvaluationFile& out) {
  for (const Json& column : list(by, "columns", file))
    out.columns.push_back(column.is_string() ? column.get<std::string>() : column.dump());
  for (const Json& group : list(by, "groups", file)) {
    TaskGroup one{.tasks = static_cast<int64_t>(number(group, "tasks", file)),
                  .mean = number(group, "mean", file)};
    const Json& values = list(group, "values", file);
    for (size_t i = 0; i < values.size() && i < out.columns.size(); ++i) {
      if (!values[i].is_number())
        refuse(file, cat(out.columns[i], " ", values[i].dump(),
                         " has no place on an axis, need numbers. Evaluate with another --by."));
      one.values.push_back(values[i].get<double>());
    }
    if (one.values.size() != out.columns.size())
      refuse(file, cat("a group has ", values.size(), " values for ", out.columns.size(), " columns."));
    out.groups.push_back(std::move(one));
  }
}

// The mean over the groups whose first values are `fixed`, by the value after them.
Series right_by(const EvaluationFile& of, const std::vector<double>& fixed) {
  std::map<double, std::pair<double, int64_t>> sums;
  for (const TaskGroup& group : of.groups) {
    if (!std::equal(fixed.begin(), fixed.end(), group.values.begin())) continue;
    auto& [right, tasks] = sums[group.values[fixed.size()]];
    right += group.mean * static_cast<double>(group.tasks), tasks += group.tasks;
  }
  Series out;
  for (const auto& [value, sum] : sums)
    if (sum.second > 0) out.add(value, 100 * sum.first / static_cast<double>(sum.second));
  return out;
}

class EvaluationCharts {
 public:
  explicit EvaluationCharts(const std::vector<EvaluationFile>& all) : all_(all) {
    for (const EvaluationFile& one : all_) {
      if (std::find(names_.begin(), names_.end(), one.name) == names_.end()) names_.push_back(one.name);
      if (one.columns.empty()) continue;
      if (columns_.empty()) columns_ = one.columns;
      if (columns_ != one.columns)
        refuse(one.name, cat("is by ", one.columns[0], ", another by ", columns_[0],
                             ". Evaluate all with the same --by."));
    }
  }

  std::string html() const {
    std::string out;
    if (!columns_.empty()) out += right_chart({}, cat("Right answers by ", columns_[0], ", %"));
    if (columns_.size() > 1)
      for (const double value : first_values())
        out += right_chart({value}, cat("Right answers by ", columns_[1], ", ", columns_[0], " ",
                                        short_number(value), ", %"));
    Chart loss = chart("Loss by position, nats a token", "position");
    for (const EvaluationFile& one : all_) add(loss, one, one.positions);
    return out + (has_points(loss) ? chart_html(loss) : "");
  }

  std::string legend() const {
    std::string items;
    for (size_t i = 0; i < names_.size(); ++i)
      items += cat("<li><i class=c", i % 8, "></i>", escape_xml(names_[i]), "</li>");
    return "<ul class=legend>" + items + "</ul>\n";
  }

 private:
  static Chart chart(const std::string& title, const std::string& x_label) {
    return {.title = title, .x_label = x_label, .unit = "", .note = "", .curves = {}};
  }

  void add(Chart& chart, const EvaluationFile& of, Series points) const {
    if (points.size() == 0) return;
    const auto colour = std::find(names_.begin(), names_.end(), of.name) - names_.begin();
    chart.curves.push_back({of.name, "", static_cast<int>(colour), Mark::kPoints, false, std::move(points)});
  }

  std::string right_chart(const std::vector<double>& fixed, const std::string& title) const {
    Chart right = chart(title, columns_[fixed.size()]);
    right.unit = " %";
    right.from_zero = true;
    for (const EvaluationFile& one : all_) add(right, one, right_by(one, fixed));
    return chart_html(right);
  }

  std::vector<double> first_values() const {
    std::vector<double> values;
    for (const EvaluationFile& one : all_)
      for (const TaskGroup& group : one.groups) values.push_back(group.values[0]);
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return values;
  }

  const std::vector<EvaluationFile>& all_;
  std::vector<std::string> names_, columns_;
};

}  // namespace

EvaluationFile read_evaluation(const std::filesystem::path& file) {
  const std::string source = file.string();
  const Json json = parse_json(read_file(file), source);
  EvaluationFile out{.name = file.stem().string(), .columns = {}, .groups = {}, .positions = {}};
  if (!json.is_object() || !(json.contains("by") || json.contains("positions")))
    refuse(source,
           "neither \"by\" nor \"positions\". Write it with hadal eval --json and --by or --positions.");
  if (json.contains("by")) read_groups(json["by"], source, out);
  if (json.contains("positions"))
    for (const Json& one : list(json, "positions", source))
      out.positions.add((number(one, "begin", source) + number(one, "end", source)) / 2,
                        number(one, "loss", source));
  return out;
}

std::string evaluations_html(const std::vector<EvaluationFile>& evaluations, const std::string& title) {
  const EvaluationCharts charts(evaluations);
  return page_html(title, charts.legend() + "<div class=grid>\n" + charts.html() + "</div>\n");
}

}  // namespace hadal
