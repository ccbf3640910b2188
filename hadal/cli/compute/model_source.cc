#include "hadal/cli/compute/model_source.h"

#include <csignal>
#include <filesystem>
#include <thread>

#include "hadal/checkpoint/load.h"
#include "hadal/planner.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

std::atomic<bool> was_interrupted{false};

void on_signal(int signal) {
  was_interrupted = true;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void use_threads(int64_t threads) {
  keep_freed_memory();
  set_num_threads(
      static_cast<int>(threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency())));
}

void use_threads_for(const Transformer& model, int64_t threads) {
  constexpr int64_t kSmall = 100'000'000;
  const int64_t bytes = model_size(model.config()).active.total() * (model.dtype() == at::kFloat ? 4 : 2);
  if (threads == 0 && bytes < kSmall) set_num_threads(1);
}

Transformer open_model(const std::string& folder, const std::string& dtype) {
  std::optional<DType> wanted;
  if (dtype == "f32") wanted = DType::kF32;
  if (dtype == "bf16") wanted = DType::kBF16;
  return load_model(folder, wanted);
}

std::optional<Tokenizer> open_tokenizer(const std::string& folder) {
  if (!std::filesystem::exists(std::filesystem::path(folder) / "tokenizer.json")) return std::nullopt;
  return Tokenizer::load(folder);
}

InterruptWatch::InterruptWatch() {
  was_interrupted = false;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

InterruptWatch::~InterruptWatch() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

const std::atomic<bool>& InterruptWatch::flag() const {
  return was_interrupted;
}

}  // namespace hadal
