#include "hadal/checkpoint/convert.h"

#include <algorithm>
#include <bit>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <unordered_map>

#include "hadal/base/file.h"
#include "hadal/base/machine.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/group_codes.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/numbers.h"
#include "hadal/checkpoint/partial_folder.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/config/hf_config.h"
#include "hadal/error.h"
#include "hadal/kernels/fp8.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kStripeValues = int64_t{1} << 22;  // converted at a time: 16 MiB of floats

// Files of a model folder that have nothing to do with the weights' dtype.
constexpr const char* kCompanions[] = {"tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "tokenizer.model",
                                       "chat_template.jinja",
                                       "chat_template.json",
                                       "generation_config.json"};

// Where the bytes of one output tensor come from.
struct Source {
  enum class Kind { kCopy, kNumbers, kCodes, kScales, kGroupCodes, kGroupScales } kind = Kind::kCopy;
  StoredTensor tensor;
  int64_t columns = -1;                       // K of a matrix
  WeightFormat format = WeightFormat::kInt8;  // kGroupCodes
};

// The output tensors in checkpoint order, and where each comes from.
struct Plan {
  std::vector<TensorHead> heads;
  std::unordered_map<std::string, Source> sources;
  std::vector<std::string> unknown;

  void add(TensorHead head, Source source) {
    sources.emplace(head.name, std::move(source));
    heads.push_back(std::move(head));
  }
};

// A matrix in groups: codes, then scales, which the same pass yields.
void add_groups(Plan& plan, const Checkpoint& checkpoint, const HfTensor& tensor, const StoredTensor& stored,
                WeightFormat format) {
  const int64_t N = tensor.shape[0], K = tensor.shape[1];
  const bool keep = stored.type == ElementType::kU8 && weight_format(checkpoint, stored) == format;
  using Kind = Source::Kind;
  StoredTensor from = stored;
  from.name = tensor.hf_name;  // of its own where gate and up are packed into one
  plan.add({tensor.hf_name, ElementType::kU8, {N, row_bytes(format, K)}},
           {keep ? Kind::kCopy : Kind::kGroupCodes, from, K, format});
  plan.add({group_scale_name(tensor.hf_name), ElementType::kBF16, {N, row_groups(format, K)}},
           {keep ? Kind::kCopy : Kind::kGroupScales, keep ? *find_scale(checkpoint, stored) : from});
}

Plan make_plan(const ModelConfig& config, const ModelConfig& wanted, const Checkpoint& checkpoint) {
  const bool keep_fp8 = wanted.fp8_power_of_two_scales == config.fp8_power_of_two_scales;
  Plan plan;
  std::set<std::string, std::less<>> used;
  for (const HfTensor& tensor : hf_tensors(config)) {
    const auto stored = find_weight(checkpoint, tensor);
    if (!stored) continue;  // check_against found what is needed
    used.insert(stored->name.substr(0, stored->name.find('[')));
    const StoredTensor* scale = find_scale(checkpoint, *stored);
    if (scale) used.insert(scale->name);
    if (const auto format = group_format(wanted, tensor)) {
      add_groups(plan, checkpoint, tensor, *stored, *format);
      continue;
    }
    const ElementType type = stored_type(tensor.role, wanted.stored_dtype, stored->type);
    const TensorHead head{tensor.hf_name, type, tensor.shape};
    const int64_t columns = tensor.shape.back();
    if (type != ElementType::kF8E4M3) {
      plan.add(head, {stored->type == type ? Source::Kind::kCopy : Source::Kind::kNumbers, *stored, columns});
      continue;
    }
    const TensorHead scales{scale_name(tensor.hf_name),
                            ElementType::kF32,
                            {fp8_blocks(tensor.shape[0]), fp8_blocks(tensor.shape[1])}};
    const bool keep = keep_fp8 && scale && stored->type == ElementType::kF8E4M3;  // groups have scales, too
    plan.add(head, {keep ? Source::Kind::kCopy : Source::Kind::kCodes, *stored, columns});
    plan.add(scales, {keep ? Source::Kind::kNumbers : Source::Kind::kScales, keep ? *scale : *stored,
                      keep ? scales.shape[1] : columns});
  }
  for (const StoredTensor* stored : checkpoint.tensors()) {
    if (used.count(stored->name)) continue;
    if (!is_rotary_table(stored->name)) plan.unknown.push_back(stored->name);
    plan.add({stored->name, stored->type, stored->shape}, {Source::Kind::kCopy, *stored});
  }
  return plan;
}

// Streams tensors from a checkpoint into a writer, one stripe of rows at a time.
class Streamer {
 public:
  Streamer(const Checkpoint& checkpoint, const Plan& plan, bool power_of_two, int64_t num_threads)
      : checkpoint_(checkpoint), plan_(plan), power_of_two_(power_of_two), num_threads_(num_threads) {}

  void operator()(const TensorHead& head, SafetensorsWriter& writer) {
    const Source& source = plan_.sources.at(head.name);
    const StoredTensor& tensor = source.tensor;
    if (source.kind == Source::Kind::kCopy) return writer.write(tensor.bytes.data(), tensor.bytes.size());
    if (source.kind == Source::Kind::kGroupScales) return write_group_scales(tensor.name, writer);
    const int64_t rows = tensor.shape.empty() ? 1 : tensor.shape[0];
    if (rows == 0 || tensor.num_values() == 0) return;
    const int64_t cols = tensor.shape.size() == 2 ? source.columns : tensor.num_values() / rows;
    const int64_t step = std::max<int64_t>(1, kStripeValues / cols / kFp8Block) * kFp8Block;
    for (int64_t row = 0; row < rows; row += step) {
      const int64_t n = std::min(step, rows - row);
      values_.resize(static_cast<size_t>(n * cols));
      read_f32(checkpoint_, tensor, values_.data(), row, n, cols);
      if (source.kind == Source::Kind::kNumbers) {
        write_numbers(head, tensor, writer);
      } else if (source.kind == Source::Kind::kGroupCodes) {
        write_groups(source, n, cols, writer);
      } else {
        write_fp8(source.kind, tensor, n, cols, writer);
      }
    }
  }

 private:
  [[noreturn]] void refuse(const StoredTensor& tensor, const std::string& why) const {
    throw Error(ErrorCode::kInvalidArgument,
                cat("[checkpoint.convert] ", checkpoint_.path().string(), ": ", tensor.name, " ", why));
  }

  // The first value whose bits without sign lie in [low, high]; nullptr if none does. Counts first, since
  // that loop vectorises.
  const float* first_with(uint32_t low, uint32_t high) const {
    const auto lies = [=](float x) { return (std::bit_cast<uint32_t>(x) & 0x7FFFFFFF) - low <= high - low; };
    uint32_t count = 0;
    for (const float x : values_) count += lies(x);
    return count ? &*std::find_if(values_.begin(), values_.end(), lies) : nullptr;
  }

  void write_numbers(const TensorHead& head, const StoredTensor& tensor, SafetensorsWriter& writer) {
    // Infinities and NaN exist in F16 too and are kept; what would become one is refused.
    if (head.type == ElementType::kF16)
      if (const float* x = first_with(0x477FE001, 0x7F7FFFFF))
        refuse(tensor, cat("has the value ", *x, ", beyond the largest F16, 65504. Convert to bf16 or f32."));
    bytes_.resize(values_.size() * static_cast<size_t>(size_bytes(head.type)));
    from_f32(head.type, values_.data(), bytes_.data(), static_cast<int64_t>(values_.size()));
    writer.write(bytes_.data(), bytes_.size());
  }

  void write_fp8(Source::Kind kind, const StoredTensor& tensor, int64_t rows, int64_t cols,
                 SafetensorsWriter& writer) {
    if (const float* x = first_with(0x7F800000, 0x7FFFFFFF))
      refuse(tensor, cat("has the value ", *x, ", which FP8 blocks cannot hold. Repair the weights."));
    const bool codes = kind == Source::Kind::kCodes;
    scales_.resize(static_cast<size_t>(fp8_blocks(rows) * fp8_blocks(cols)));
    bytes_.resize(codes ? values_.size() : 0);
    quantise_blocks(values_.data(), rows, cols, power_of_two_,
                    codes ? reinterpret_cast<uint8_t*>(bytes_.data()) : nullptr, scales_.data());
    if (codes) {
      writer.write(bytes_.data(), bytes_.size());
    } else {
      writer.write(scales_.data(), scales_.size() * sizeof(float));
    }
  }

  // The codes of a stripe; its scales wait until their own tensor is written, which comes after.
  void write_groups(const Source& source, int64_t rows, int64_t cols, SafetensorsWriter& writer) {
    if (const float* x = first_with(0x7F800000, 0x7FFFFFFF))
      refuse(source.tensor,
             cat("has the value ", *x, ", which integer codes cannot hold. Repair the weights."));
    const int64_t row_size = row_bytes(source.format, cols), groups = row_groups(source.format, cols);
    bytes_.resize(static_cast<size_t>(rows * row_size));
    std::vector<uint16_t>& scales = group_scales_[source.tensor.name];
    const size_t before = scales.size();
    scales.resize(before + static_cast<size_t>(rows * groups));
    for_row_ranges(rows, [&](int64_t first, int64_t n) {
      quantise_groups(source.format, values_.data() + first * cols, n, cols,
                      reinterpret_cast<uint8_t*>(bytes_.data()) + first * row_size,
                      scales.data() + before + static_cast<size_t>(first * groups));
    });
    writer.write(bytes_.data(), bytes_.size());
  }

  void write_group_scales(const std::string& weight, SafetensorsWriter& writer) {
    const auto scales = group_scales_.extract(weight);
    if (!scales.empty()) writer.write(scales.mapped().data(), scales.mapped().size() * sizeof(uint16_t));
  }

  // work(first, count) over all rows, a part a thread.
  template <class Work>
  void for_row_ranges(int64_t rows, const Work& work) const {
    const int64_t parts = std::clamp<int64_t>(rows, 1, num_threads_), part = (rows + parts - 1) / parts;
    std::vector<std::jthread> threads;
    for (int64_t first = part; first < rows; first += part)
      threads.emplace_back([&work, first, n = std::min(part, rows - first)] { work(first, n); });
    work(0, std::min(part, rows));
  }

  const Checkpoint& checkpoint_;
  const Plan& plan_;
  bool power_of_two_;
  int64_t num_threads_;
  std::unordered_map<std::string, std::vector<uint16_t>> group_scales_;
  std::vector<float> values_, scales_;
  std::vector<std::byte> bytes_;
};

}  // namespace

ElementType stored_type(WeightRole role, DType dtype, ElementType now) {
  if (role == WeightRole::kBalanceBias) return ElementType::kF32;
  if (dtype == DType::kInt8 || dtype == DType::kInt4)
    return now == ElementType::kF32 ? ElementType::kF32 : ElementType::kBF16;
  if (dtype == DType::kF8E4M3 && role != WeightRole::kMatrix) return ElementType::kBF16;
  return element_type(dtype);
}

void convert(const fs::path& source, const fs::path& destination, const ConvertOptions& options) {
  if (options.max_shard_bytes <= 0)
    throw Error(ErrorCode::kInvalidArgument, cat("[checkpoint.convert] max_shard_bytes is ",
                                                 options.max_shard_bytes, ", need a positive number."));
  const Checkpoint checkpoint = open_checkpoint(source);
  const fs::path config_path = checkpoint.folder() / "config.json";
  ModelConfig config = load_config(config_path);
  config.mtp_depth = stored_mtp_depth(checkpoint, config.num_layers);
  for (const Difference& difference : compare(config, checkpoint))
    if (difference.kind != Difference::Kind::kUnexpected) check_against(config, checkpoint);  // throws
  const fs::path target = checked_destination(source, destination, options.overwrite);

  ModelConfig wanted = config;
  wanted.stored_dtype = options.dtype;
  wanted.fp8_power_of_two_scales = options.power_of_two_scales || config.fp8_power_of_two_scales;
  if (config.stored_dtype != options.dtype)
    wanted.int8_matrices =
        options.dtype == DType::kInt4 ? default_int8_matrices(config) : std::vector<std::string>{};
  const Plan plan = make_plan(config, wanted, checkpoint);
  for (const std::string& name : plan.unknown)
    std::cerr << "note: " << name << " is no weight of this model; copied as it is\n";
  int64_t bytes = int64_t{1} << 20;
  for (const TensorHead& head : plan.heads) bytes += head.num_bytes();
  require_space(existing_parent(target), bytes);

  const int64_t num_threads = options.num_threads > 0 ? options.num_threads : this_machine().cores;
  PartialFolder partial(target);
  write_checkpoint(partial.path(), plan.heads, options.max_shard_bytes,
                   Streamer(checkpoint, plan, wanted.fp8_power_of_two_scales, num_threads));
  const Json json = parse_json(read_file(config_path), config_path.string());
  write_file(partial.path() / "config.json", dump_json(with_storage(json, wanted), 2) + "\n");
  for (const char* name : kCompanions) {
    std::error_code ignored;
    if (fs::is_regular_file(checkpoint.folder() / name, ignored))
      write_file(partial.path() / name, read_file(checkpoint.folder() / name));
  }
  partial.move_into_place();
}

}  // namespace hadal
