#include "hadal/report/metrics.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"

namespace hadal {
namespace {

// The shortest text that reads back to the same double, always with a point or an exponent, so that a column
// is of real numbers throughout.
std::string real_text(double value) {
  if (std::isnan(value)) return "\"NaN\"";
  if (std::isinf(value)) return value > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// One object, field by field in the order of the calls.
class Line {
 public:
  explicit Line(const char* kind = nullptr) {
    if (kind) text("kind", kind);
  }
  Line& raw(const char* key, const std::string& value) {
    text_ += text_.empty() ? "{\"" : ",\"";
    text_ += key;
    text_ += "\":";
    text_ += value;
    return *this;
  }
  Line& text(const char* key, const std::string& value) { return raw(key, dump_json(Json(value))); }
  Line& integer(const char* key, int64_t value) { return raw(key, std::to_string(value)); }
  Line& real(const char* key, double value) { return raw(key, real_text(value)); }
  Line& real(const char* key, const std::optional<double>& value) {
    return value ? real(key, *value) : *this;
  }
  Line& reals(const char* key, const std::vector<double>& values) {
    std::string list = "[";
    for (const double value : values) list += (list.size() > 1 ? "," : "") + real_text(value);
    return raw(key, list + "]");
  }
  // Only if stated.
  Line& stated(const char* key, const std::string& value) { return value.empty() ? *this : text(key, value); }
  Line& stated(const char* key, int64_t value) { return value == 0 ? *this : integer(key, value); }
  std::string done() const { return text_ + "}"; }

 private:
  std::string text_;
};

std::string integers_text(const std::vector<int64_t>& values) {
  std::string list = "[";
  for (const int64_t value : values) list += (list.size() > 1 ? "," : "") + std::to_string(value);
  return list + "]";
}

std::string values_text(const std::vector<std::pair<std::string, double>>& values) {
  Line line;
  for (const auto& [name, value] : values) line.real(name.c_str(), value);
  return values.empty() ? "{}" : line.done();
}

// JSON's integers are read as int64; a larger seed is a text.
std::string seed_text(uint64_t seed) {
  const std::string digits = std::to_string(seed);
  return seed > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ? "\"" + digits + "\"" : digits;
}

}  // namespace

std::string to_line(const RunRecord& r) {
  Line line("run");
  line.stated("name", r.name).stated("model", r.model);
  line.stated("parameters", r.parameters).stated("active_parameters", r.active_parameters);
  line.stated("machine", r.machine).stated("threads", r.threads).stated("dtype", r.dtype);
  line.raw("seed", seed_text(r.seed));
  line.stated("planned_steps", r.planned_steps).stated("tokens_per_step", r.tokens_per_step);
  line.stated("num_experts", r.num_experts).stated("top_k", r.top_k).stated("version", r.version);
  if (r.peak_flops != 0) line.real("peak_flops", r.peak_flops);
  return line.done();
}

std::string to_line(const StepRecord& r) {
  Line line("step");
  line.integer("step", r.step).integer("tokens", r.tokens).real("loss", r.loss).reals("mtp_loss", r.mtp_loss);
  line.real("balance_loss", r.balance_loss).real("lr", r.lr).real("grad_norm", r.grad_norm);
  return line.real("max_vio", r.max_vio).integer("skipped", r.skipped).done();
}

std::string to_line(const EvalRecord& r) {
  Line line("eval");
  line.integer("step", r.step).real("loss", r.loss).real("bits_per_byte", r.bits_per_byte);
  line.reals("mtp_acceptance", r.mtp_acceptance).real("max_vio", r.max_vio);
  return line.real("accuracy", r.accuracy).done();
}

std::string to_line(const LoadRecord& r) {
  std::string layers = "[";
  for (const LayerLoad& layer : r.layers) {
    if (layers.size() > 1) layers += ",";
    layers += Line().integer("layer", layer.layer).raw("load", integers_text(layer.load)).done();
  }
  return Line("load").integer("step", r.step).raw("layers", layers + "]").done();
}

std::string to_line(const ValuesRecord& r) {
  Line line(r.kind.c_str());
  line.integer("step", r.step);
  return line.raw("values", values_text(r.values)).done();
}

std::string to_line(const TimingRecord& r) {
  Line line;
  line.integer("step", r.step).real("seconds", r.seconds).real("tokens_per_second", r.tokens_per_second);
  line.real("mfu", r.mfu);
  return r.parts.empty() ? line.done() : line.raw("parts", values_text(r.parts)).done();
}

std::optional<double> ValuesRecord::get(std::string_view name) const {
  for (const auto& [key, value] : values)
    if (key == name) return value;
  return std::nullopt;
}

MetricsWriter::MetricsWriter(const std::filesystem::path& run_folder)
    : metrics_(run_folder / "metrics.jsonl"), timing_(run_folder / "timing.jsonl") {}

void MetricsWriter::begin(const RunRecord& record) {
  if (metrics_.empty()) metrics_.append(to_line(record));
}

void MetricsWriter::add(const StepRecord& record) {
  metrics_.append(to_line(record), record.step);
}

void MetricsWriter::add(const EvalRecord& record) {
  metrics_.append(to_line(record), record.step);
}

void MetricsWriter::add(const LoadRecord& record) {
  metrics_.append(to_line(record), record.step);
}

void MetricsWriter::add(const ValuesRecord& record) {
  metrics_.append(to_line(record), record.step);
}

void MetricsWriter::add(const TimingRecord& record) {
  timing_.append(to_line(record), record.step);
}

void MetricsWriter::sync() {
  metrics_.sync();
  timing_.sync();
}

void MetricsWriter::truncate_after(int64_t step) {
  metrics_.truncate_after(step);
  timing_.truncate_after(step);
}

}  // namespace hadal
