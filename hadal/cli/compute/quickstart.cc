// hadal quickstart: text, tokenizer, a small DeepSeek-V3 model trained on it, and its first words.
#include <cstdio>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/cli/chat.h"
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/input.h"
#include "hadal/cli/output.h"
#include "hadal/data/story_text.h"
#include "hadal/engine.h"
#include "hadal/planner.h"

namespace hadal {
namespace {

constexpr int64_t kStoryBytes = 4'000'000;

// The opening of the text's last line that is long enough: held out, so the model has not read it.
std::string opening(const std::string& text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t begin = text.rfind('\n', end - 1);
    const size_t first = begin == std::string::npos ? 0 : begin + 1;
    if (end - first >= 40) {
      size_t cut = first + 24;
      while (cut < end && text[cut] != ' ') ++cut;
      return text.substr(first, cut - first);
    }
    if (first == 0) break;
    end = first - 1;
  }
  return text.substr(0, 24);
}

}  // namespace

int run_quickstart(const QuickstartOptions& o) {
  use_threads(o.threads);
  const std::filesystem::path out = o.out;
  std::filesystem::create_directories(out);
  std::string text, data = o.data;
  if (o.data.empty()) {
    text = story_text(o.seed, kStoryBytes);
    data = out / "stories.txt";
    write_file(data, text);
    std::fprintf(stderr, "1. text: stories made by hadal, %s\n", (out / "stories.txt").c_str());
  } else {
    text = read_text(o.data);
    std::fprintf(stderr, "1. text: %s\n", o.data.c_str());
  }
  TrainConfig config;
  config.run = {.out = o.out, .minutes = o.minutes, .seed = o.seed, .threads = o.threads};
  config.model.preset = "tiny";
  config.data.text = data;
  config.batch.sequences = 16, config.batch.length = 128;
  config.optimizer.lr = 4e-3, config.schedule.warmup_steps = 50;
  check(config, "quickstart");
  const ModelConfig model = model_config_of(config);
  const ModelSize size = model_size(model);
  std::fprintf(
      stderr,
      "2. training a byte-level BPE tokenizer of %lld tokens and a DeepSeek-V3 model (latent attention, "
      "%lld experts of which %lld a token, MTP): %s parameters, %s active\n",
      static_cast<long long>(model.vocab_size), static_cast<long long>(model.moe.num_experts),
      static_cast<long long>(model.moe.top_k), with_commas(size.main.total() + size.mtp.total()).c_str(),
      with_commas(size.active.total()).c_str());
  const TrainedModel trained = train_in_folder(config, {.restart_finished = true});
  if (trained.end == TrainEnd::kFailed) return trained.exit_code();

  const std::string start = opening(text);
  std::fprintf(stderr, "3. it goes on from \"%s\", which it has not read:\n", start.c_str());
  const Tokenizer& tokenizer = trained.tokenizer.value();
  Engine engine = Engine::open(out, {.threads = static_cast<int>(o.threads), .max_sequences = 1});
  for (const uint64_t seed : {1, 2, 3}) {
    const Answer said = engine.generate({.prompt = tokenizer.encode_prompt(start),
                                         .max_tokens = 80,
                                         .sampling = {.temperature = 0.7, .seed = seed},
                                         .stops = {"\n"}});
    print(start + said.text + "\n");
    flush_output();
    std::fputs(usage_line(said).c_str(), stderr);
  }
  std::fprintf(stderr, "\nGo on with:\n  hadal run %s -p \"%s\"\n  hadal info %s\n  hadal inspect %s\n",
               out.c_str(), start.c_str(), out.c_str(), out.c_str());
  return trained.exit_code();
}

}  // namespace hadal
