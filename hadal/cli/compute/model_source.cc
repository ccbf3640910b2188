#include "hadal/cli/compute/model_source.h"

#include <cstdio>
#include <filesystem>
#include <thread>

#include "hadal/checkpoint/load.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/config/hf_config.h"
#include "hadal/tensor/make.h"

namespace hadal {

void use_threads(int64_t threads) {
  keep_freed_memory();
  set_num_threads(
      static_cast<int>(threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency())));
}

Transformer open_model(const std::string& folder, const std::string& dtype) {
  std::optional<DType> wanted;
  if (dtype == "f32") wanted = DType::kF32;
  if (dtype == "bf16") wanted = DType::kBF16;
  return load_model(folder, wanted);
}

ModelConfig start_config(const std::string& folder) {
  const ModelConfig stated = load_config(folder);
  require_dense_attention(stated, folder);
  const ModelConfig stored = check_against(stated, open_checkpoint(folder));
  if (stored.mtp_depth < stated.mtp_depth)
    std::fprintf(stderr, "hadal: %s: no weights of the MTP module are stored: training goes on without one\n",
                 folder.c_str());
  return stored;
}

std::optional<Tokenizer> open_tokenizer(const std::string& folder) {
  if (!std::filesystem::exists(std::filesystem::path(folder) / "tokenizer.json")) return std::nullopt;
  return Tokenizer::load(folder);
}

}  // namespace hadal
