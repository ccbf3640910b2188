// hadal sft, hadal reward-model train: a trained model learns from chats, or from preferences.
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/output.h"

namespace hadal {

namespace {

int fine_tune(const TrainConfig& config, const TrainOptions& o) {
  if (o.print_config) {
    print(train_config_toml(config));
    return 0;
  }
  check(config, o.config.empty() ? "the command line" : o.config);
  use_threads(config.run.threads);
  return train_in_folder(config, {.force_config = o.force_config, .restart = o.restart}).exit_code();
}

}  // namespace

int run_sft(const SftOptions& o) {
  return fine_tune(sft_config_of(o), o.train);
}

int run_reward_train(const RewardTrainOptions& o) {
  return fine_tune(reward_train_config_of(o), o.train);
}

}  // namespace hadal
