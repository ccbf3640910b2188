#include "hadal/posttrain/reward_step.h"

#include <algorithm>

#include "hadal/base/check.h"
#include "hadal/base/random.h"
#include "hadal/data/permutation.h"
#include "hadal/model/network_view.h"
#include "hadal/posttrain/preference_loss.h"
#include "hadal/posttrain/preference_report.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

// Sequences filled up behind their end, where nothing before can see.
struct PaddedRows {
  int64_t rows = 0, length = 0;
  std::vector<int32_t> ids;         // [rows, length]
  std::vector<int64_t> real, last;  // places of tokens; of each row's last token
};

PaddedRows pad(std::span<const std::vector<int32_t>* const> sequences) {
  PaddedRows out{.rows = std::ssize(sequences)};
  for (const auto* ids : sequences) out.length = std::max(out.length, std::ssize(*ids));
  out.ids.resize(static_cast<size_t>(out.rows * out.length));
  for (int64_t row = 0; row < out.rows; ++row) {
    const std::vector<int32_t>& ids = *sequences[static_cast<size_t>(row)];
    HADAL_CHECK(!ids.empty());
    std::copy(ids.begin(), ids.end(), out.ids.begin() + row * out.length);
    for (int64_t i = 0; i < std::ssize(ids); ++i) out.real.push_back(row * out.length + i);
    out.last.push_back(out.real.back());
  }
  return out;
}

}  // namespace

ModelWeights reward_weights(const ModelConfig& model, ModelWeights weights, uint64_t seed) {
  const int64_t D = model.width;
  weights.layers.resize(static_cast<size_t>(model.num_layers));
  weights.head_WD = Tensor();
  std::vector<float> score;
  for (int64_t d = 0; d < D; ++d)
    score.push_back(static_cast<float>(normal(seed, stream_id("score"), static_cast<uint64_t>(d)) /
                                       static_cast<double>(D + 1)));
  weights.score_XD = from_floats(score).view({1, D}).to(weights.embedding_WD.scalar_type());
  return weights;
}

Tensor reward_scores(const Transformer& model, std::span<const std::vector<int32_t>* const> sequences,
                     const TrainingPass& pass, std::vector<ExpertLoad>* loads) {
  const PaddedRows rows = pad(sequences);
  const int64_t B = rows.rows, S = rows.length, D = model.config().width;
  Trace trace{.keep_rows = false};
  const Tensor hidden_BSD =
      model.forward(from_ids(rows.ids).view({B, S}), nullptr, &trace, MlaForm::kAuto, pass);
  HADAL_SHAPE(hidden_BSD, B, S, D);
  if (loads) {
    const Tensor real_T = from_ints(rows.real);
    for (const LayerTrace& layer : trace.layers)
      if (layer.is_moe)
        loads->push_back({layer.layer, layer.routing.expert_TA.index_select(0, real_T).flatten().bincount(
                                           {}, model.config().moe.num_experts)});
  }
  const Tensor last_BD = hidden_BSD.flatten(0, 1).index_select(0, from_ints(rows.last));
  return last_BD.matmul(model.weights().score_XD.t()).squeeze(1);
}

StepLoss reward_step(const Transformer& model, std::span<const Preference* const> pairs,
                     const RewardStepConfig& config, int64_t step_pairs) {
  const size_t n = pairs.size();
  std::vector<const std::vector<int32_t>*> answers;
  std::vector<double> margins;
  for (const Preference* pair : pairs) {
    answers.push_back(&pair->chosen), answers.push_back(&pair->rejected);
    margins.push_back(config.margins ? pair->margin : 0);
  }
  StepLoss out;
  const Tensor score_B =
      reward_scores(model, answers, {.products = config.products, .recompute = config.recompute}, &out.loads);
  std::vector<double> chosen, rejected;
  const std::vector<float> scores = to_floats(score_B.detach());
  for (size_t i = 0; i < n; ++i) chosen.push_back(scores[2 * i]), rejected.push_back(scores[2 * i + 1]);
  const PairLoss loss = bradley_terry(chosen, rejected, margins, config.center);
  const double share = static_cast<double>(n) / static_cast<double>(step_pairs);
  std::vector<float> slopes;
  for (size_t i = 0; i < n; ++i)
    slopes.push_back(static_cast<float>(share * loss.chosen[i])),
        slopes.push_back(static_cast<float>(share * loss.rejected[i]));
  (score_B * from_floats(slopes)).sum().backward();
  out.total = out.main = share * loss.loss;
  return out;
}

Objective reward_objective(std::shared_ptr<const std::vector<Preference>> pairs,
                           std::shared_ptr<const std::vector<Preference>> held_out,
                           const RewardStepConfig& config, uint64_t seed) {
  Objective objective;
  objective.run = [pairs, config, seed](const Transformer& model, int64_t first, int64_t n,
                                        int64_t step_pairs) {
    const int64_t all = std::ssize(*pairs);
    std::vector<const Preference*> rows;
    for (int64_t row = first; row < first + n; ++row) {
      const Permutation order(all, seed, static_cast<uint64_t>(row / all));
      rows.push_back(&(*pairs)[static_cast<size_t>(order(row % all))]);
    }
    return reward_step(model, rows, config, step_pairs);
  };
  if (held_out->empty()) return objective;
  objective.measure = [held_out](const Transformer& model) {
    RewardModel inference(network_view(model.config(), model.weights()), num_threads());
    const PreferenceReport report = preference_report(inference, *held_out);
    return EvalRecord{.loss = report.loss, .accuracy = report.all.accuracy};
  };
  return objective;
}

}  // namespace hadal
