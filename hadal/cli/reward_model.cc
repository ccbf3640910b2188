// hadal reward-model eval and score: a reward model's opinion. (train: compute/fine_tuning.cc)
#include "hadal/posttrain/reward_model.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/flags.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"
#include "hadal/posttrain/preference_report.h"

namespace hadal {

void add_reward_eval(CLI::App& app, RewardModelOptions& o) {
  file_flag(app, "MODEL", o.model, "folder of the reward model", "DIR")->required();
  file_flag(app, "--data", o.data, "JSONL of prompts with a chosen and a rejected answer")->required();
  count_or_zero_flag(app, "--threads", o.threads, "0: all cores");
  json_flag(app, o.json);
}

void add_reward_score(CLI::App& app, RewardModelOptions& o) {
  file_flag(app, "MODEL", o.model, "folder of the reward model", "DIR")->required();
  app.add_option("--prompt", o.prompt, "what the user said")->type_name("TEXT")->required();
  app.add_option("--answer", o.answer, "what was answered, reasoning first")->type_name("TEXT")->required();
  count_or_zero_flag(app, "--threads", o.threads, "0: all cores");
  json_flag(app, o.json);
}

int run_reward_eval(const RewardModelOptions& o) {
  RewardModel model = RewardModel::open(o.model, static_cast<int>(o.threads));
  const PreferenceData data =
      read_preferences(o.data, *model.tokenizer(), model.format(), model.config().max_positions);
  if (data.pairs.empty())
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.reward_model] ", o.data, " has no pair that fits the ", "model's context of ",
                    model.config().max_positions, " tokens. Give shorter answers."));
  if (data.dropped > 0)
    std::fprintf(stderr, "%lld pairs are longer than the model's context and are left out\n",
                 static_cast<long long>(data.dropped));
  const PreferenceReport report = preference_report(model, data.pairs);
  print(o.json ? report_json(report) : report_text(report));
  return 0;
}

int run_reward_score(const RewardModelOptions& o) {
  RewardModel model = RewardModel::open(o.model, static_cast<int>(o.threads));
  const ChatMessage messages[] = {{.role = "user", .content = o.prompt},
                                  {.role = "assistant", .content = o.answer}};
  const std::vector<int32_t> ids[] = {encode_exchange(*model.tokenizer(), model.format(), messages)};
  const double score = model.score(ids)[0];
  if (o.json) {
    print(
        dump_json({{"score", score}, {"normalised", model.normalised(score)}, {"tokens", ids[0].size()}}, 1) +
        "\n");
    return 0;
  }
  char line[120];
  std::snprintf(line, sizeof line, "%.4f, %+.2f deviations from the mean of held-out answers\n", score,
                model.normalised(score));
  print(line);
  return 0;
}

}  // namespace hadal
