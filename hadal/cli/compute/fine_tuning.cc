// hadal sft, hadal reward-model train: a trained model learns from chats, or from preferences.
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/output.h"

namespace hadal {

int run_fine_tuning(const FineTuningOptions& options) {
  const TrainConfig config = fine_tuning_config_of(options);
  const TrainOptions& o = options.train;
  if (o.print_config) {
    print(train_config_toml(config));
    return 0;
  }
  check(config, o.config.empty() ? "the command line" : o.config);
  use_threads(config.run.threads);
  return train_in_folder(config, {.force_config = o.force_config, .restart = o.restart}).exit_code();
}

}  // namespace hadal
