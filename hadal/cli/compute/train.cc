// hadal train: a model from text.
#include "hadal/base/text.h"
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/input.h"
#include "hadal/error.h"

namespace hadal {

int run_train(const TrainOptions& o) {
  use_threads(o.threads);
  const ModelConfig config =
      !o.config.empty() ? load_config(o.config) : preset(o.preset.empty() ? "tiny" : o.preset);
  const std::string text = read_text(o.data);
  std::filesystem::create_directories(o.out);
  std::optional<Tokenizer> tokenizer;
  if (o.tokenizer.empty()) {
    tokenizer = learn_tokenizer(text, config.vocab_size, o.out);
  } else {
    tokenizer = Tokenizer::load(o.tokenizer);
    copy_tokenizer(o.tokenizer, o.out);
  }
  const TrainLoopConfig loop{.batch = o.batch,
                             .length = o.length,
                             .steps = o.steps,
                             .minutes = o.minutes,
                             .peak_rate = o.lr,
                             .warmup = o.warmup,
                             .seed = o.seed,
                             .loss = {.mtp_weight = o.mtp_weight},
                             .adamw = {.weight_decay = o.weight_decay, .clip = o.clip}};
  const TrainedModel trained = train_and_save(config, *tokenizer, text, loop, o.out);
  return trained.interrupted ? kInterruptedTrainExit : 0;
}

}  // namespace hadal
