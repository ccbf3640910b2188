// hadal sft: a trained model learns from chats.
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/output.h"

namespace hadal {

int run_sft(const SftOptions& o) {
  const TrainConfig config = sft_config_of(o);
  if (o.train.print_config) {
    print(train_config_toml(config));
    return 0;
  }
  check(config, o.train.config.empty() ? "the command line" : o.train.config);
  use_threads(config.run.threads);
  return train_in_folder(config, {.force_config = o.train.force_config, .restart = o.train.restart})
      .exit_code();
}

}  // namespace hadal
