// A model in a GGUF file: architecture "deepseek2", which names V2 and V3. The keys and tensor names are
// those that llama.cpp reads. Not in it: MTP modules, init_std, further EOS ids; every n-th layer MoE; mscale
// that differs from mscale_all_dim.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "hadal/checkpoint/gguf.h"
#include "hadal/checkpoint/names.h"
#include "hadal/config.h"

namespace hadal {

// The config as metadata. Throws unsupported for what GGUF has no key for.
void add_gguf_config(GgufWriter& writer, const ModelConfig& config, GgufType type);
// Throws unsupported (another architecture), invalid_config, corrupt.
ModelConfig gguf_config(const GgufFile& file);

// One tensor of a GGUF file and the checkpoint tensors it is made from.
struct GgufPart {
  enum class Half { kNone, kKeys, kValues };  // of kv_up: keys transposed [H, C, N], values [H, V, C]
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<int64_t> shape;
  Half half = Half::kNone;
  std::vector<HfTensor> from;  // all experts of a layer, in order; else one
};
// In file order. Norms, router and balance bias are F32; rows that are no whole Q8_0 blocks are BF16.
std::vector<GgufPart> gguf_parts(const ModelConfig& config, GgufType type);

// The values of a checkpoint tensor [num_values], gathered from where the file has them. `spec_name`: of
// weight_specs(). Throws invalid_config (missing, other shape), unsupported (tensor type).
void read_gguf_tensor(const GgufFile& file, const ModelConfig& config, const std::string& spec_name,
                      const HfTensor& tensor, float* out);

// tokenizer.json, tokenizer_config.json and chat_template.jinja of `folder` as metadata; notes that there is
// none where there is none. Throws unsupported if GGUF has no name for how it splits text.
void add_gguf_tokenizer(GgufWriter& writer, const std::filesystem::path& folder, const ModelConfig& config);
// Writes tokenizer.json and tokenizer_config.json; nothing if the file has no tokens. Throws unsupported.
void write_gguf_tokenizer(const GgufFile& file, const std::filesystem::path& folder);

// `x` as the shortest decimal that gives this float, in double: 1e-6f -> 1e-6.
double shortest_double(double x);

}  // namespace hadal
