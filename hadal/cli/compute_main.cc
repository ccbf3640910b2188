// hadal-compute: hadal with the commands that compute.
#include "hadal/cli/command_line.h"
#include "hadal/cli/compute/compute.h"

int main(int argc, char** argv) {
  const hadal::Handlers handlers{.logits = hadal::run_logits,
                                 .train = hadal::run_train,
                                 .fine_tuning = hadal::run_fine_tuning,
                                 .grpo = hadal::run_grpo};
  return hadal::hadal_main(argc, argv, handlers);
}
