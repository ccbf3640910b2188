#include "hadal/config/train_config.h"

#include <toml++/toml.h>
#include <algorithm>
#include <charconv>
#include <cmath>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

[[noreturn]] void fail(const std::string& source, const std::string& what) {
  throw Error(ErrorCode::kInvalidConfig, cat("[config.train] ", source, ": ", what));
}

const char* need_of(const int64_t&) {
  return "an integer";
}
const char* need_of(const uint64_t&) {
  return "an integer of at least 0";
}
const char* need_of(const double&) {
  return "a number";
}
const char* need_of(const bool&) {
  return "true or false";
}
const char* need_of(const std::string&) {
  return "text in quotes";
}
const char* need_of(const std::vector<std::string>&) {
  return "a list of texts";
}

// A TOML value into a field; false: of another type.
bool take(const toml::node& node, int64_t& out) {
  if (!node.is_integer()) return false;
  out = **node.as_integer();
  return true;
}
bool take(const toml::node& node, uint64_t& out) {
  if (!node.is_integer() || **node.as_integer() < 0) return false;
  out = static_cast<uint64_t>(**node.as_integer());
  return true;
}
bool take(const toml::node& node, double& out) {
  if (node.is_integer()) {
    out = static_cast<double>(**node.as_integer());
  } else if (node.is_floating_point()) {
    out = **node.as_floating_point();
  } else {
    return false;
  }
  return std::isfinite(out);
}
bool take(const toml::node& node, bool& out) {
  if (!node.is_boolean()) return false;
  out = **node.as_boolean();
  return true;
}
bool take(const toml::node& node, std::string& out) {
  if (!node.is_string()) return false;
  out = **node.as_string();
  return true;
}
bool take(const toml::node& node, std::vector<std::string>& out) {
  if (!node.is_array()) return false;
  out.clear();
  for (const toml::node& one : *node.as_array()) {
    if (!one.is_string()) return false;
    out.push_back(**one.as_string());
  }
  return true;
}

// The same from the command line's text.
template <class T>
bool take_number(const std::string& text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}
bool take(const std::string& text, int64_t& out) {
  return take_number(text, out);
}
bool take(const std::string& text, uint64_t& out) {
  return take_number(text, out);
}
bool take(const std::string& text, double& out) {
  return take_number(text, out) && std::isfinite(out);
}
bool take(const std::string& text, bool& out) {
  out = text == "true";
  return out || text == "false";
}
bool take(const std::string& text, std::string& out) {
  out = text;
  return true;
}
bool take(const std::string& text, std::vector<std::string>& out) {
  out.clear();
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');)
    if (!part.empty()) out.push_back(part);
  return true;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char code[8];
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      out += code;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string toml_value(const int64_t& value) {
  return std::to_string(value);
}
std::string toml_value(const uint64_t& value) {
  return std::to_string(value);
}
std::string toml_value(const bool& value) {
  return value ? "true" : "false";
}
std::string toml_value(const std::string& value) {
  return quoted(value);
}
std::string toml_value(const double& value) {
  char text[40];
  const auto result = std::to_chars(text, text + sizeof text, value);
  std::string out(text, result.ptr);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}
std::string toml_value(const std::vector<std::string>& values) {
  std::string out;
  for (const std::string& value : values) out += (out.empty() ? "" : ", ") + quoted(value);
  return "[" + out + "]";
}

// f("section.key", field, help) for every key.
void for_each_key(TrainConfig& config, auto&& f) {
  config.sections([&](const char* section, auto& fields_of) {
    fields_of.fields(
        [&](const char* key, auto& field, const char* help) { f(cat(section, ".", key), field, help); });
  });
}

std::vector<std::string> all_keys() {
  std::vector<std::string> keys;
  for (const TrainKey& key : train_keys()) keys.push_back(key.name);
  return keys;
}

// The nearest key by its whole name, else by its last part: "learning.lr" means "optimizer.lr".
std::string key_hint(const std::string& key) {
  const std::vector<std::string> keys = all_keys();
  if (const std::string hint = did_you_mean(key, keys); !hint.empty()) return hint;
  const std::string last = key.substr(key.rfind('.') + 1);
  for (const std::string& known : keys)
    if (known.substr(known.find('.') + 1) == last) return cat(" (did you mean \"", known, "\"?)");
  return "";
}

// Keys that decide when and where, not what is learned.
bool alters_results(const std::string& key) {
  for (const char* free : {"run.out", "run.minutes", "run.threads", "optimizer.export_ema",
                           "compute.recompute", "eval.every", "eval.windows", "eval.loads_every"})
    if (key == free) return false;
  return !key.starts_with("checkpoint.") && !key.starts_with("parallel.");
}

std::string line_of(const toml::node& node) {
  return cat("line ", node.source().begin.line, ": ");
}

std::string as_written(const toml::node& node) {
  if (node.is_table()) return "a table";
  if (node.is_array()) return "a list";
  if (node.is_string()) return quoted(**node.as_string());
  std::ostringstream text;
  node.visit([&](const auto& value) { text << value; });
  return text.str();
}

}  // namespace

void read_train_config(std::string_view text, const std::string& source, TrainConfig& config) {
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& e) {
    fail(source, cat("line ", e.source().begin.line, ": not TOML: ", e.description(), "."));
  }
  std::vector<std::string> seen;
  for (const auto& [section, node] : root) {
    const std::string section_name(section.str());
    if (!node.is_table())
      fail(source, cat(line_of(node), "\"", section_name, "\" stands outside a section",
                       key_hint(section_name), ": need [section] and key = value."));
    for (const auto& [key, value] : *node.as_table()) {
      const std::string name = cat(section_name, ".", std::string(key.str()));
      bool known = false;
      for_each_key(config, [&](const std::string& each, auto& field, const char*) {
        if (each != name) return;
        known = true;
        if (!take(value, field))
          fail(source, cat(line_of(value), name, " is ", as_written(value), ", need ", need_of(field), "."));
      });
      if (!known)
        fail(source, cat(line_of(value), "there is no key ", name, key_hint(name),
                         ". hadal train --print-config lists all."));
    }
  }
}

TrainConfig load_train_config(const std::filesystem::path& path) {
  TrainConfig config;
  read_train_config(read_file(path, 1 << 20), path.string(), config);
  return config;
}

void set_train_key(TrainConfig& config, const std::string& key, const std::string& value,
                   const std::string& source) {
  bool known = false;
  for_each_key(config, [&](const std::string& each, auto& field, const char*) {
    if (each != key) return;
    known = true;
    if (!take(value, field)) fail(source, cat(key, " is \"", value, "\", need ", need_of(field), "."));
  });
  if (!known)
    fail(source, cat("there is no key ", key, key_hint(key), ". hadal train --print-config lists all."));
}

std::vector<TrainKey> train_keys() {
  TrainConfig config;
  std::vector<TrainKey> keys;
  for_each_key(config, [&](const std::string& key, auto& field, const char* help) {
    keys.push_back({key, toml_value(field), need_of(field), help});
  });
  return keys;
}

std::string train_config_reference() {
  std::string out =
      "# Configuration of a training run\n\n"
      "Made by `hadal train --print-config-reference`. A run reads `--config RUN.toml`, over it the flags; "
      "every "
      "key is\na flag too: `--optimizer.lr 3e-4`. `hadal train --print-config` prints what a command line "
      "comes to.\n";
  std::string section;
  for (const TrainKey& key : train_keys()) {
    const size_t dot = key.name.find('.');
    if (key.name.substr(0, dot) != section) {
      section = key.name.substr(0, dot);
      out += cat("\n## [", section, "]\n\n| key | default | meaning |\n|---|---|---|\n");
    }
    out += cat("| `", key.name.substr(dot + 1), "` | `", key.value, "` | ", key.help, " |\n");
  }
  return out;
}

std::string train_config_toml(const TrainConfig& config, bool with_help) {
  TrainConfig copy = config;
  std::string out;
  copy.sections([&](const char* section, auto& fields_of) {
    out += cat(out.empty() ? "" : "\n", "[", section, "]\n");
    fields_of.fields([&](const char* key, auto& field, const char* help) {
      const std::string line = cat(key, " = ", toml_value(field));
      out += line;
      if (with_help) out += cat(std::string(line.size() < 32 ? 32 - line.size() : 1, ' '), "# ", help);
      out += "\n";
    });
  });
  return out;
}

namespace {

void check_data(const DataSection& d, auto&& need) {
  need(d.text.empty() != d.sources.empty(), "data.text", d.text, "it or data.sources, one of them");
  need(d.held_out_share >= 0 && d.held_out_share < 1, "data.held_out_share", d.held_out_share,
       "a share from 0 to below 1");
  need(d.fim_rate >= 0 && d.fim_rate <= 1, "data.fim_rate", d.fim_rate, "a share from 0 to 1");
  need(d.split_merged >= 0 && d.split_merged <= 1, "data.split_merged", d.split_merged,
       "a share from 0 to 1");
  need(d.sources.empty() || d.split_merged == 0, "data.split_merged", d.split_merged,
       "0 with data.sources: hadal data build --split-merged does it");
  need(d.text.empty() || d.fim_rate == 0, "data.fim_rate", d.fim_rate,
       "0 with data.text: a text is one document; hadal data build makes sources of many");
  need(d.text.empty() || !d.mask_documents, "data.mask_documents", d.mask_documents,
       "false with data.text: a text is one document; hadal data build makes sources of many");
  need(d.packing == "stream" || d.packing == "best_fit", "data.packing", d.packing, "stream or best_fit");
  need(d.text.empty() || d.packing == "stream", "data.packing", d.packing,
       "stream with data.text: a text is one document; hadal data build makes sources of many");
}

bool is_one_of(const std::string& value, std::initializer_list<const char*> known) {
  return std::find(known.begin(), known.end(), value) != known.end();
}

bool is_layer_list(const std::string& text) {
  if (text.empty()) return true;
  std::istringstream parts(text + ",");  // or getline would not see that nothing follows the last comma
  for (std::string part; std::getline(parts, part, ',');) {
    int64_t n = 0;
    if (!take_number(part, n) || n < 0) return false;
  }
  return true;
}

void check_parallel(const ParallelSection& p, auto&& need) {
  need(p.pipeline >= 1, "parallel.pipeline", p.pipeline, "1 (none) or more");
  need(is_one_of(p.schedule, {"gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe", "dualpipe-v"}),
       "parallel.schedule", p.schedule, "gpipe, 1f1b, interleaved, zb-h1, zb-v, dualpipe or dualpipe-v");
  need(p.chunks >= 1, "parallel.chunks", p.chunks, "at least 1");
  need(is_layer_list(p.layers), "parallel.layers", p.layers,
       "numbers with commas between them, e.g. 3,4,4,3");
  need(p.experts >= 1, "parallel.experts", p.experts, "1 (each rank has all) or more");
  need(p.tensor >= 1, "parallel.tensor", p.tensor, "1 (none) or more");
  need(p.timeout_seconds > 0, "parallel.timeout_seconds", p.timeout_seconds, "more than 0");
}

}  // namespace

void check(const TrainConfig& c, const std::string& source) {
  const auto need = [&](bool good, const char* key, const auto& value, const char* what) {
    if (!good) fail(source, cat(key, " is ", toml_value(value), ", need ", what, "."));
  };
  need(c.run.steps >= 0, "run.steps", c.run.steps, "0 (as many as fit in the time) or more");
  need(c.run.minutes >= 0, "run.minutes", c.run.minutes, "0 (no limit) or more");
  need(c.run.steps > 0 || c.run.minutes > 0, "run.steps", c.run.steps,
       "a number of steps or run.minutes, or the run would never end");
  need(c.run.threads >= 0, "run.threads", c.run.threads, "0 (all cores) or more");
  need(c.model.preset.empty() || c.model.config.empty(), "model.config", c.model.config,
       "it or model.preset, not both");
  check_data(c.data, need);
  need(c.batch.sequences >= 1, "batch.sequences", c.batch.sequences, "at least 1");
  need(c.batch.length >= 2, "batch.length", c.batch.length, "at least 2");
  need(c.batch.micro >= 0, "batch.micro", c.batch.micro, "0 (all at once) or more");
  need(c.batch.workers >= 0, "batch.workers", c.batch.workers, "0 (one per thread) or more");
  need(c.batch.start >= 0 && c.batch.start <= c.batch.sequences, "batch.start", c.batch.start,
       "0 (no ramp) to batch.sequences");
  need(c.batch.start == 0 || c.batch.ramp_tokens > 0, "batch.ramp_tokens", c.batch.ramp_tokens,
       "more than 0 with batch.start");
  need(c.batch.quantum >= 1 && c.batch.quantum <= c.batch.sequences, "batch.quantum", c.batch.quantum,
       "1 to batch.sequences");
  need(c.optimizer.lr > 0, "optimizer.lr", c.optimizer.lr, "more than 0");
  const auto decay = [](double x) { return x >= 0 && x < 1; };
  need(decay(c.optimizer.beta1), "optimizer.beta1", c.optimizer.beta1, "0 to below 1");
  need(decay(c.optimizer.beta2), "optimizer.beta2", c.optimizer.beta2, "0 to below 1");
  need(decay(c.optimizer.ema), "optimizer.ema", c.optimizer.ema, "0 (none) to below 1");
  need(!c.optimizer.export_ema || c.optimizer.ema > 0, "optimizer.export_ema", c.optimizer.export_ema,
       "optimizer.ema above 0 with it");
  need(c.optimizer.eps > 0, "optimizer.eps", c.optimizer.eps, "more than 0");
  need(c.optimizer.weight_decay >= 0, "optimizer.weight_decay", c.optimizer.weight_decay, "0 or more");
  need(c.optimizer.clip > 0, "optimizer.clip", c.optimizer.clip, "more than 0");
  need(is_one_of(c.schedule.kind, {"v3", "v2", "cosine", "wsd", "constant"}), "schedule.kind",
       c.schedule.kind, "v3, v2, cosine, wsd or constant");
  need(c.schedule.warmup_steps >= 0, "schedule.warmup_steps", c.schedule.warmup_steps, "0 or more");
  const auto share = [](double x) { return x >= 0 && x <= 1; };
  need(share(c.schedule.floor), "schedule.floor", c.schedule.floor, "a share from 0 to 1");
  need(share(c.schedule.decay_share), "schedule.decay_share", c.schedule.decay_share, "a share from 0 to 1");
  need(c.loss.mtp_weight >= 0, "loss.mtp_weight", c.loss.mtp_weight, "0 or more");
  need(c.loss.mtp_weight_late >= 0, "loss.mtp_weight_late", c.loss.mtp_weight_late, "0 or more");
  need(c.loss.balance_alpha >= 0, "loss.balance_alpha", c.loss.balance_alpha, "0 or more");
  need(c.loss.expert_alpha >= 0, "loss.expert_alpha", c.loss.expert_alpha, "0 (none) or more");
  need(c.loss.device_alpha >= 0, "loss.device_alpha", c.loss.device_alpha, "0 (none) or more");
  need(c.loss.communication_alpha >= 0, "loss.communication_alpha", c.loss.communication_alpha,
       "0 (none) or more");
  need(c.loss.capacity_factor >= 0, "loss.capacity_factor", c.loss.capacity_factor, "0 (all) or more");
  need(share(c.loss.never_dropped_share), "loss.never_dropped_share", c.loss.never_dropped_share,
       "a share from 0 to 1");
  need(is_one_of(c.compute.precision, {"f32", "bf16", "f16"}), "compute.precision", c.compute.precision,
       "f32, bf16 or f16");
  need(is_one_of(c.compute.recompute, {"none", "selective", "full"}), "compute.recompute",
       c.compute.recompute, "none, selective or full");
  need(c.loss.bias_step >= 0, "loss.bias_step", c.loss.bias_step, "0 or more");
  check_parallel(c.parallel, need);
  need(c.checkpoint.every >= 0, "checkpoint.every", c.checkpoint.every, "0 (at the end) or more");
  need(c.checkpoint.minutes >= 0, "checkpoint.minutes", c.checkpoint.minutes, "0 (not) or more");
  need(c.checkpoint.keep >= 1, "checkpoint.keep", c.checkpoint.keep, "at least 1");
  need(c.checkpoint.max_skips_in_a_row >= 1, "checkpoint.max_skips_in_a_row", c.checkpoint.max_skips_in_a_row,
       "at least 1");
  need(c.checkpoint.max_rollbacks >= 0, "checkpoint.max_rollbacks", c.checkpoint.max_rollbacks, "0 or more");
  need(c.eval.every >= 0, "eval.every", c.eval.every, "0 (before and after) or more");
  need(c.eval.windows >= 1, "eval.windows", c.eval.windows, "at least 1");
  need(c.eval.loads_every >= 0, "eval.loads_every", c.eval.loads_every, "0 (none) or more");
}

std::vector<std::string> result_changes(const TrainConfig& before, const TrainConfig& now) {
  TrainConfig a = before, b = now;
  std::vector<std::string> old_values, changes;
  for_each_key(
      a, [&](const std::string&, auto& field, const char*) { old_values.push_back(toml_value(field)); });
  size_t i = 0;
  for_each_key(b, [&](const std::string& key, auto& field, const char*) {
    const std::string value = toml_value(field), &old = old_values[i++];
    if (value != old && alters_results(key))
      changes.push_back(cat(key, ": ", old, " before, ", value, " now"));
  });
  return changes;
}

}  // namespace hadal
