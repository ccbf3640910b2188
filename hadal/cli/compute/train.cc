// hadal train: a model from text or tokens.
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/output.h"
#include "hadal/tensor/make.h"

namespace hadal {

int run_train(const TrainOptions& o) {
  const TrainConfig config = train_config_of(o);
  if (o.print_reference) {
    print(train_config_reference());
    return 0;
  }
  if (o.print_config) {
    print(train_config_toml(config));
    return 0;
  }
  check(config, o.config.empty() ? "the command line" : o.config);
  use_threads(config.run.threads);
  // Who recomputes wants memory back.
  if (config.compute.recompute != "none") return_freed_memory();
  if (o.dry_run) {
    print_dry_run(config);
    return 0;
  }
  return train_in_folder(config, {.force_config = o.force_config, .restart = o.restart}).exit_code();
}

}  // namespace hadal
