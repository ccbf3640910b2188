// Rows of preferences to train a reward model on (data.preferences).
#include <cstdio>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/cli/compute/training_rows.h"
#include "hadal/error.h"
#include "hadal/model/network_view.h"
#include "hadal/posttrain/chat_data.h"
#include "hadal/posttrain/preference_report.h"
#include "hadal/posttrain/reward_step.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using Pairs = std::vector<Preference>;

// The last share of the pairs.
Pairs split_off(Pairs& pairs, double share) {
  const auto n = static_cast<int64_t>(share * static_cast<double>(pairs.size()));
  Pairs out(pairs.end() - n, pairs.end());
  pairs.resize(pairs.size() - static_cast<size_t>(n));
  return out;
}

// Measures the trained model and writes what it found beside the weights.
std::string write_card(const Transformer& model, const Pairs& held_out, const std::string& chat_template,
                       const std::filesystem::path& out) {
  RewardCard card{.chat_template = chat_template};
  std::string text;
  if (!held_out.empty()) {
    RewardModel inference(network_view(model.config(), model.weights()), num_threads());
    const PreferenceReport report = preference_report(inference, held_out);
    card.mean = report.mean, card.deviation = report.deviation;
    card.pairs = report.all.pairs, card.accuracy = report.all.accuracy;
    text = report_text(report);
  }
  write_file(out / "reward_model.json", reward_card_json(card));
  return text;
}

}  // namespace

TrainingData preference_data(const TrainConfig& config, const ModelConfig& model,
                             const std::filesystem::path& out) {
  TrainingData data;
  data.tokenizer = start_tokenizer(config, model, out);
  const auto format = chat_format(*data.tokenizer, config.data.chat_template);
  PreferenceData read =
      read_preferences(config.data.preferences, *data.tokenizer, format, config.batch.length);
  auto held_out = std::make_shared<Pairs>(
      config.data.held_out.empty()
          ? split_off(read.pairs, config.data.held_out_share)
          : read_preferences(config.data.held_out, *data.tokenizer, format, config.batch.length).pairs);
  if (read.pairs.empty())
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.train] ", config.data.preferences, " has no pair of at most ", config.batch.length,
                    " tokens that is not held out. Raise batch.length or give more."));
  const auto pairs = std::make_shared<const Pairs>(std::move(read.pairs));
  data.rows_per_epoch = std::ssize(*pairs);
  data.summary =
      cat(with_commas(std::ssize(*pairs)), " pairs to learn from, ", with_commas(std::ssize(*held_out)),
          " held out, answers of up to ", read.longest, " tokens with their prompts\n");
  if (read.dropped > 0)
    data.summary +=
        cat(read.dropped, " pairs have an answer that is longer and are left out (batch.length)\n");
  data.rows.fingerprint = read.fingerprint;
  data.rows.objective = reward_objective(pairs, held_out,
                                         {.center = config.loss.center,
                                          .margins = config.loss.margins,
                                          .products = products_named(config.compute.precision),
                                          .recompute = *recompute_named(config.compute.recompute)},
                                         config.run.seed);
  data.finish = [held_out, name = config.data.chat_template](const Transformer& trained,
                                                             const std::filesystem::path& folder) {
    return write_card(trained, *held_out, name, folder);
  };
  return data;
}

}  // namespace hadal
