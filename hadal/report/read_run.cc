#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/report/metrics.h"

namespace hadal {
namespace {

// The fields of one line. Those not there keep the default given; wrong types are errors with the place.
class Fields {
 public:
  Fields(const Json& object, std::string place) : object_(object), place_(std::move(place)) {
    if (!object_.is_object()) fail("is no JSON object");
  }
  bool has(const char* key) const { return object_.contains(key); }
  std::string text(const char* key) const {
    if (!has(key)) return "";
    if (!object_[key].is_string()) fail(cat("\"", key, "\" is ", object_[key].dump(), ", need a text"));
    return object_[key].get<std::string>();
  }
  int64_t integer(const char* key, int64_t otherwise) const {
    return has(key) ? integer_of(object_[key], key) : otherwise;
  }
  int64_t step() const {
    if (!has("step")) fail("\"step\" is missing");
    const int64_t step = integer_of(object_["step"], "step");
    if (step < 0) fail(cat("\"step\" is ", step, ", need at least 0"));
    return step;
  }
  double real(const char* key) const {
    if (!has(key)) fail(cat("\"", key, "\" is missing"));
    return real_of(object_[key], key);
  }
  std::optional<double> optional_real(const char* key) const {
    return has(key) ? std::optional(real_of(object_[key], key)) : std::nullopt;
  }
  std::vector<double> reals(const char* key) const {
    std::vector<double> values;
    if (has(key))
      for (const Json& one : list(key)) values.push_back(real_of(one, key));
    return values;
  }
  std::vector<int64_t> integers(const char* key) const {
    std::vector<int64_t> values;
    for (const Json& one : list(key)) values.push_back(integer_of(one, key));
    return values;
  }
  std::vector<std::pair<std::string, double>> named_reals(const char* key) const {
    std::vector<std::pair<std::string, double>> values;
    if (!has(key)) return values;
    if (!object_[key].is_object()) fail(cat("\"", key, "\" is no object"));
    for (const auto& [name, value] : object_[key].items()) values.emplace_back(name, real_of(value, key));
    return values;
  }
  const Json& list(const char* key) const {
    if (!has(key) || !object_[key].is_array()) fail(cat("\"", key, "\" is missing or no list"));
    return object_[key];
  }
  uint64_t seed() const {
    if (!has("seed") || object_["seed"].is_number_integer()) return static_cast<uint64_t>(integer("seed", 0));
    const std::string digits = text("seed");
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size()) fail("\"seed\" is no integer");
    return value;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kCorrupt, cat("[report.read] ", place_, ": ", what, "."));
  }
  const std::string& place() const { return place_; }

 private:
  int64_t integer_of(const Json& value, const char* key) const {
    if (!value.is_number_integer()) fail(cat("\"", key, "\" holds ", value.dump(), ", need an integer"));
    return value.get<int64_t>();
  }
  double real_of(const Json& value, const char* key) const {
    if (value.is_number()) return value.get<double>();
    if (value == "NaN" || value.is_null()) return std::numeric_limits<double>::quiet_NaN();
    if (value == "Infinity") return std::numeric_limits<double>::infinity();
    if (value == "-Infinity") return -std::numeric_limits<double>::infinity();
    fail(cat("\"", key, "\" holds ", value.dump(), ", need a number"));
  }

  const Json& object_;
  std::string place_;
};

RunRecord run_record(const Fields& f) {
  RunRecord r;
  r.name = f.text("name");
  r.model = f.text("model");
  r.parameters = f.integer("parameters", 0);
  r.active_parameters = f.integer("active_parameters", 0);
  r.machine = f.text("machine");
  r.threads = f.integer("threads", 0);
  r.dtype = f.text("dtype");
  r.seed = f.seed();
  r.planned_steps = f.integer("planned_steps", 0);
  r.tokens_per_step = f.integer("tokens_per_step", 0);
  r.num_experts = f.integer("num_experts", 0);
  r.top_k = f.integer("top_k", 0);
  r.version = f.text("version");
  r.peak_flops = f.optional_real("peak_flops").value_or(0);
  return r;
}

StepRecord step_record(const Fields& f) {
  StepRecord r;
  r.step = f.step();
  r.tokens = f.integer("tokens", 0);
  r.loss = f.real("loss");
  r.mtp_loss = f.reals("mtp_loss");
  r.balance_loss = f.optional_real("balance_loss").value_or(0);
  r.lr = f.real("lr");
  r.grad_norm = f.real("grad_norm");
  r.max_vio = f.optional_real("max_vio");
  r.skipped = f.integer("skipped", 0);
  return r;
}

EvalRecord eval_record(const Fields& f) {
  return {f.step(),
          f.real("loss"),
          f.optional_real("bits_per_byte"),
          f.reals("mtp_acceptance"),
          f.optional_real("max_vio"),
          f.optional_real("accuracy")};
}

LoadRecord load_record(const Fields& f) {
  LoadRecord r{f.step(), {}};
  for (const Json& layer : f.list("layers")) {
    const Fields of(layer, f.place());
    r.layers.push_back({of.integer("layer", 0), of.integers("load")});
  }
  return r;
}

TimingRecord timing_record(const Fields& f) {
  return {f.step(), f.real("seconds"), f.real("tokens_per_second"), f.optional_real("mfu"),
          f.named_reals("parts")};
}

void add_line(RunMetrics& run, const Fields& f, int64_t& others) {
  const std::string kind = f.text("kind");
  if (kind == "run")
    run.run = run_record(f);
  else if (kind == "step")
    run.steps.push_back(step_record(f));
  else if (kind == "eval")
    run.evals.push_back(eval_record(f));
  else if (kind == "load")
    run.loads.push_back(load_record(f));
  else if (kind == "rl" || kind == "rl_eval")
    run.values.push_back({kind, f.step(), f.named_reals("values")});
  else if (kind.empty())
    f.fail("\"kind\" is missing");
  else
    ++others;
}

// visit(fields) for each line. A last line without line break is left out, with a note.
template <class Visit>
void each_line(const std::filesystem::path& path, RunMetrics& run, Visit visit) {
  const MappedFile file(path);
  const std::string_view text = file.text();
  int64_t number = 0, last = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    ++number;
    if (end == std::string_view::npos) {
      run.notes.push_back(
          cat(path.string(), " line ", number, ": torn, left out (the run goes on or crashed)"));
      return;
    }
    const std::string place = cat(path.string(), " line ", number);
    const Json value = parse_json(text.substr(begin, end - begin), place);
    const Fields fields(value, place);
    if (fields.has("step")) {
      const int64_t step = fields.step();
      if (step < last) fields.fail(cat("step ", step, " behind step ", last));
      last = step;
    }
    visit(fields);
    begin = end + 1;
  }
}

std::string folder_name(const std::filesystem::path& folder) {
  const auto whole = std::filesystem::absolute(folder).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

}  // namespace

RunMetrics read_run(const std::filesystem::path& path) {
  std::error_code ignored;
  RunMetrics run;
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  run.folder = is_folder ? path : path.parent_path();
  const auto metrics = is_folder ? path / "metrics.jsonl" : path;
  if (!std::filesystem::exists(metrics, ignored))
    throw Error(ErrorCode::kNotFound, cat("[report.read] ", path.string(),
                                          is_folder ? ": no metrics.jsonl in it. Give the folder of a "
                                                      "training run."
                                                    : ": no such file or folder. Check the path."));
  int64_t others = 0;
  each_line(metrics, run, [&](const Fields& f) { add_line(run, f, others); });
  if (others) run.notes.push_back(cat(metrics.string(), ": ", others, " lines of unknown kinds left out"));
  const auto timing = run.folder / "timing.jsonl";
  if (std::filesystem::exists(timing, ignored))
    each_line(timing, run, [&](const Fields& f) { run.timings.push_back(timing_record(f)); });
  run.name = run.run.name.empty() ? folder_name(run.folder) : run.run.name;
  return run;
}

}  // namespace hadal
