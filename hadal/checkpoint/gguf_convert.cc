#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/convert.h"
#include "hadal/checkpoint/gguf_model.h"
#include "hadal/checkpoint/numbers.h"
#include "hadal/checkpoint/partial_folder.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/config/hf_config.h"
#include "hadal/error.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kStripeValues = int64_t{1} << 22;

int64_t values_of(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

[[noreturn]] void refuse(ErrorCode code, const std::string& text) {
  throw Error(code, cat("[checkpoint.convert] ", text));
}

// Writes the parts of a GGUF file from a checkpoint, some rows at a time.
class PartWriter {
 public:
  PartWriter(const Checkpoint& checkpoint, const MlaConfig& mla) : checkpoint_(checkpoint), mla_(mla) {}

  void operator()(const GgufPart& part, const GgufWriter::Sink& sink) {
    for (const HfTensor& tensor : part.from) {
      const StoredTensor stored = *find_weight(checkpoint_, tensor);  // check_against found it
      if (part.half != GgufPart::Half::kNone) {
        write_half(part, stored, sink);
        continue;
      }
      const int64_t rows = tensor.shape.size() == 1 ? 1 : tensor.shape[0], cols = tensor.shape.back();
      const int64_t step = tensor.shape.size() == 1 ? 1 : std::max<int64_t>(1, kStripeValues / cols);
      for (int64_t row = 0; row < rows; row += step) {
        const int64_t n = std::min(step, rows - row);
        values_.resize(static_cast<size_t>(n * cols));
        if (tensor.shape.size() == 1)
          read_f32(checkpoint_, stored, values_.data());
        else
          read_f32(checkpoint_, stored, values_.data(), row, n, cols);
        encode(part, tensor.hf_name, sink);
      }
    }
  }

 private:
  // Head by head; the rows of a head are its keys [N, C], then its values [V, C].
  void write_half(const GgufPart& part, const StoredTensor& stored, const GgufWriter::Sink& sink) {
    const int64_t N = mla_.nope_dim, V = mla_.value_dim, C = mla_.kv_latent;
    const bool keys = part.half == GgufPart::Half::kKeys;
    std::vector<float> rows(static_cast<size_t>((keys ? N : V) * C));
    values_.resize(rows.size());
    for (int64_t h = 0; h < mla_.num_heads; ++h) {
      read_f32(checkpoint_, stored, rows.data(), h * (N + V) + (keys ? 0 : N), keys ? N : V, C);
      for (int64_t c = 0; keys && c < C; ++c)
        for (int64_t n = 0; n < N; ++n)
          values_[static_cast<size_t>(c * N + n)] = rows[static_cast<size_t>(n * C + c)];
      if (!keys) values_ = rows;
      encode(part, stored.name, sink);
    }
  }

  void encode(const GgufPart& part, const std::string& source, const GgufWriter::Sink& sink) {
    const auto n = static_cast<int64_t>(values_.size());
    if (part.type == GgufType::kQ8_0)
      for (const float x : values_)
        if (!(std::abs(x) <= 127 * 65504.0f))
          refuse(ErrorCode::kInvalidArgument,
                 cat(checkpoint_.path().string(), ": ", source, " has the value ", x,
                     ", which Q8_0 cannot hold. Convert to bf16 or f32."));
    bytes_.resize(static_cast<size_t>(gguf_row_bytes(part.type, n)));
    gguf_from_f32(part.type, values_.data(), bytes_.data(), n);
    sink(bytes_.data(), bytes_.size());
  }

  const Checkpoint& checkpoint_;
  MlaConfig mla_;
  std::vector<float> values_;
  std::vector<std::byte> bytes_;
};

fs::path checked_file(const fs::path& given, bool overwrite) {
  const fs::path path = fs::absolute(given).lexically_normal();
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    refuse(ErrorCode::kInvalidArgument,
           cat("destination ", given.string(), " is a folder. Give a file name."));
  if (fs::exists(path, ignored) && !overwrite)
    refuse(ErrorCode::kInvalidArgument,
           cat("destination ", given.string(), " exists. Give a new file, or allow it to be overwritten."));
  if (!fs::is_directory(path.parent_path(), ignored))
    refuse(ErrorCode::kNotFound, cat("the folder of ", given.string(), " does not exist. Create it."));
  return path;
}

}  // namespace

void write_gguf(const fs::path& source, const fs::path& destination, GgufDType dtype, bool overwrite) {
  const Checkpoint checkpoint = open_checkpoint(source);
  const ModelConfig config = check_against(load_config(checkpoint.folder() / "config.json"), checkpoint);
  require_purpose(config, Purpose::kLanguage, source.string());
  if (config.mla.indexer)
    refuse(ErrorCode::kUnsupported,
           source.string() +
               " is a deepseek_v32 model: its sparse attention has no place in a deepseek2 GGUF file. "
               "Run it from safetensors.");
  const fs::path path = checked_file(destination, overwrite);
  const GgufType type = dtype == GgufDType::kF32    ? GgufType::kF32
                        : dtype == GgufDType::kBF16 ? GgufType::kBF16
                                                    : GgufType::kQ8_0;
  GgufWriter writer;
  add_gguf_config(writer, config, type);
  writer.add_text("general.name", fs::absolute(checkpoint.folder()).lexically_normal().filename().string());
  add_gguf_tokenizer(writer, checkpoint.folder(), config);
  const std::vector<GgufPart> parts = gguf_parts(config, type);
  int64_t odd = 0;
  for (const GgufPart& part : parts) {
    writer.add_tensor(part.name, part.type, part.shape);
    odd += type == GgufType::kQ8_0 && part.type == GgufType::kBF16;
  }
  if (config.mtp_depth > 0) std::cerr << "note: GGUF has no place for the MTP module; it is left out\n";
  if (config.eos_ids.size() > 1)
    std::cerr << "note: GGUF names one EOS id; it is " << config.eos_ids[0] << "\n";
  if (config.moe.choice == Choice::kGroupMax && config.moe.num_groups_kept < config.moe.num_groups)
    std::cerr << "note: llama.cpp scores a group by its two best experts, this model by its best one\n";
  if (odd > 0) std::cerr << "note: " << odd << " tensors stay BF16: their rows are no whole blocks of 32\n";
  require_space(path.parent_path(), writer.num_bytes());
  PartWriter write_part(checkpoint, config.mla);
  writer.write(path, [&](size_t i, const GgufWriter::Sink& sink) { write_part(parts[i], sink); });
}

void read_gguf(const fs::path& source, const fs::path& destination, const ConvertOptions& options) {
  if (options.dtype != DType::kF32 && options.dtype != DType::kBF16 && options.dtype != DType::kF16)
    refuse(ErrorCode::kUnsupported, "a GGUF file becomes f32, f16 or bf16. Convert the result once more.");
  const GgufFile file(source);
  ModelConfig config = gguf_config(file);
  config.stored_dtype = options.dtype;
  config = parse_config(parse_json(config_json(config), source.string()), source.string());  // all limits
  const fs::path target = checked_destination(source, destination, options.overwrite);
  const std::vector<WeightSpec> specs = weight_specs(config);
  std::vector<TensorHead> heads;
  std::unordered_map<std::string, HfTensor> by_name;
  int64_t bytes = int64_t{1} << 20;
  for (const HfTensor& tensor : hf_tensors(config)) {
    heads.push_back(
        {tensor.hf_name, stored_type(tensor.role, options.dtype, ElementType::kF32), tensor.shape});
    bytes += heads.back().num_bytes();
    by_name.emplace(tensor.hf_name, tensor);
  }
  require_space(existing_parent(target), bytes);
  PartialFolder partial(target);
  std::vector<float> values;
  std::vector<std::byte> out;
  write_checkpoint(partial.path(), heads, options.max_shard_bytes,
                   [&](const TensorHead& head, SafetensorsWriter& writer) {
                     const HfTensor& tensor = by_name.at(head.name);
                     values.resize(static_cast<size_t>(values_of(tensor.shape)));
                     read_gguf_tensor(file, config, specs[tensor.spec].name, tensor, values.data());
                     out.resize(static_cast<size_t>(head.num_bytes()));
                     from_f32(head.type, values.data(), out.data(), static_cast<int64_t>(values.size()));
                     writer.write(out.data(), out.size());
                   });
  write_file(partial.path() / "config.json", config_json(config));
  write_gguf_tokenizer(file, partial.path());
  partial.move_into_place();
}

}  // namespace hadal
