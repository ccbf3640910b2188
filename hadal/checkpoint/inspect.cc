#include <algorithm>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint.h"
#include "hadal/checkpoint/group_codes.h"
#include "hadal/checkpoint/index.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/error.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

constexpr size_t kProblemsShown = 20;

int64_t values_of(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t size : shape)
    if (__builtin_mul_overflow(n, size, &n)) return 0;  // such a shape is a problem of its own
  return n;
}

void add_tensor(CheckpointReport& report, const StoredTensor& tensor, const std::string& type, int64_t bytes,
                const std::string& file, const std::string& format = "") {
  report.tensors.push_back({tensor.name, type, format, tensor.shape, bytes, file});
  CheckpointReport::Total& total = report.by_type[format.empty() ? type : format];
  const int64_t values = values_of(tensor.shape) * (format == "INT4" ? 2 : 1);
  ++total.tensors;
  total.values += values;
  total.bytes += bytes;
  report.num_bytes += bytes;
  if (!is_scale_name(tensor.name) && !is_rotary_table(tensor.name)) report.num_parameters += values;
}

// "INT8", "INT4", or "" of a tensor that is not in groups.
std::string group_format_name(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  const auto format = weight_format(checkpoint, tensor);
  return format == WeightFormat::kInt8 ? "INT8" : format == WeightFormat::kInt4 ? "INT4" : "";
}

// Values that fill the rows of INT8 and INT4 matrices up to whole groups.
int64_t padding_values(const ModelConfig& config, const Checkpoint& checkpoint) {
  int64_t values = 0;
  for (const HfTensor& tensor : hf_tensors(config)) {
    const auto stored = find_weight(checkpoint, tensor);
    if (!stored || tensor.shape.size() != 2 || group_format_name(checkpoint, *stored).empty()) continue;
    values += tensor.shape[0] * (padded_columns(tensor.shape[1]) - tensor.shape[1]);
  }
  return values;
}

void compare_with_config(CheckpointReport& report, const Checkpoint& checkpoint,
                         const fs::path& config_path) {
  try {
    ModelConfig config = load_config(config_path);
    if (stored_mtp_depth(checkpoint, config.num_layers) == 0) config.mtp_depth = 0;
    report.num_parameters -= padding_values(config, checkpoint);
    for (const Difference& difference : compare(config, checkpoint))
      report.problems.push_back(
          cat("[checkpoint.inspect] ", config_path.string(), ": ", difference.text, "."));
  } catch (const Error& e) {
    report.problems.emplace_back(e.what());
  }
}

CheckpointReport inspect_sound(const Checkpoint& checkpoint) {
  CheckpointReport report;
  for (size_t i = 0; i < checkpoint.num_files(); ++i)
    report.files.push_back(checkpoint.file(i).filename().string());
  report.tensors.reserve(checkpoint.tensors().size());
  for (const StoredTensor* tensor : checkpoint.tensors())
    add_tensor(report, *tensor, name(tensor->type), static_cast<int64_t>(tensor->bytes.size()),
               report.files[tensor->shard], group_format_name(checkpoint, *tensor));
  report.metadata = checkpoint.metadata();
  return report;
}

// The tensors of one file as far as they can be told.
void scan_file(CheckpointReport& report, const fs::path& path) {
  report.files.push_back(path.filename().string());
  const MappedFile file(path);
  const SafetensorsScan scan = scan_safetensors(file.bytes(), path.string());
  report.metadata.insert(scan.metadata.begin(), scan.metadata.end());
  report.problems.insert(report.problems.end(), scan.problems.begin(), scan.problems.end());
  for (const auto& entry : scan.entries)
    add_tensor(report, entry.tensor, entry.type_name,
               entry.begin <= entry.end ? static_cast<int64_t>(entry.end - entry.begin) : 0,
               report.files.back());
}

CheckpointReport inspect_broken(const CheckpointFiles& found, const std::string& first_problem) {
  CheckpointReport report;
  std::vector<fs::path> files = found.files;
  if (!found.index.empty()) {
    try {
      for (const std::string& name : read_index(found.index).files) files.push_back(found.folder / name);
    } catch (const Error&) {  // it is first_problem; without an index, take what is there
      std::error_code ignored;
      for (const auto& entry : fs::directory_iterator(found.folder, ignored))
        if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
      std::sort(files.begin(), files.end());
    }
  }
  for (const fs::path& file : files) {
    try {
      scan_file(report, file);
    } catch (const Error& e) {
      report.problems.emplace_back(e.what());
    }
  }
  if (std::find(report.problems.begin(), report.problems.end(), first_problem) == report.problems.end())
    report.problems.insert(report.problems.begin(), first_problem);
  return report;
}

}  // namespace

CheckpointReport inspect(const fs::path& path) {
  const CheckpointFiles found = find_checkpoint_files(path);
  if (!found.files.empty()) MappedFile readable(found.files[0]);  // a missing file is no broken one
  CheckpointReport report;
  try {
    const Checkpoint checkpoint = open_checkpoint(path);
    report = inspect_sound(checkpoint);
    // A lone shard cannot be compared: it holds a part of the model.
    const fs::path config = found.folder / "config.json";
    const bool whole = !found.index.empty() || found.files[0].filename() == "model.safetensors";
    std::error_code ignored;
    if (whole && fs::exists(config, ignored)) {
      report.has_config = true;
      compare_with_config(report, checkpoint, config);
    }
  } catch (const Error& e) {
    report = inspect_broken(found, e.what());
  }
  report.path = path.string();
  return report;
}

std::string report_text(const CheckpointReport& report) {
  std::ostringstream out;
  for (const auto& tensor : report.tensors) {
    out << tensor.name << "  " << tensor.type << " " << shape_text(tensor.shape)
        << (tensor.format.empty() ? "" : " ") << tensor.format << "  " << with_commas(tensor.bytes)
        << " bytes";
    if (report.files.size() > 1) out << "  " << tensor.file;
    out << "\n";
  }
  out << "\n"
      << report.path << ": " << with_commas(static_cast<int64_t>(report.tensors.size())) << " tensors in "
      << report.files.size() << (report.files.size() == 1 ? " file, " : " files, ")
      << with_commas(report.num_parameters) << " parameters, " << human_bytes(report.num_bytes) << "\n";
  for (const auto& [type, total] : report.by_type)
    out << "  " << type << ": " << with_commas(total.tensors) << " tensors, " << with_commas(total.values)
        << " values, " << human_bytes(total.bytes) << "\n";
  for (const auto& [key, value] : report.metadata) out << "  metadata " << key << ": " << value << "\n";
  if (report.problems.empty()) {
    out << (report.has_config ? "  sound; names and shapes agree with config.json\n" : "  sound\n");
    return out.str();
  }
  out << report.problems.size() << (report.problems.size() == 1 ? " problem:\n" : " problems:\n");
  for (size_t i = 0; i < std::min(report.problems.size(), kProblemsShown); ++i)
    out << "  " << report.problems[i] << "\n";
  if (report.problems.size() > kProblemsShown)
    out << "  ... and " << report.problems.size() - kProblemsShown << " more\n";
  return out.str();
}

std::string report_json(const CheckpointReport& report) {
  Json tensors = Json::array(), types = Json::object();
  for (const auto& t : report.tensors) {
    tensors.push_back(
        {{"name", t.name}, {"dtype", t.type}, {"shape", t.shape}, {"bytes", t.bytes}, {"file", t.file}});
    if (!t.format.empty()) tensors.back()["format"] = t.format;
  }
  for (const auto& [type, total] : report.by_type)
    types[type] = {{"tensors", total.tensors}, {"values", total.values}, {"bytes", total.bytes}};
  const Json root = {{"path", report.path},
                     {"files", report.files},
                     {"num_parameters", report.num_parameters},
                     {"num_bytes", report.num_bytes},
                     {"by_type", std::move(types)},
                     {"metadata", Json(report.metadata)},
                     {"has_config", report.has_config},
                     {"problems", report.problems},
                     {"tensors", std::move(tensors)}};
  return dump_json(root) + "\n";
}

}  // namespace hadal
