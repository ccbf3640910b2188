#include "hadal/posttrain/reward_step.h"

#include <algorithm>
#include <numeric>

#include "hadal/base/check.h"
#include "hadal/base/random.h"
#include "hadal/data/packed_rows.h"
#include "hadal/data/permutation.h"
#include "hadal/model/network_view.h"
#include "hadal/posttrain/preference_loss.h"
#include "hadal/posttrain/preference_report.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

// Sequences in rows as long as the longest of them, each seeing itself only.
struct AnswerRows {
  int64_t rows = 0, length = 0;
  std::vector<int32_t> ids, segment_start;  // [rows, length]; filler: id 0, its own segment
  std::vector<int64_t> real, last;          // places of tokens; of each sequence's last token
};

AnswerRows pack(std::span<const std::vector<int32_t>* const> sequences) {
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return sequences[a]->size() > sequences[b]->size(); });
  std::vector<int64_t> sizes;
  for (const size_t i : order) sizes.push_back(std::ssize(*sequences[i]));
  HADAL_CHECK(!sizes.empty() && sizes.back() > 0);
  AnswerRows out{.length = sizes.front()};
  const std::vector<uint32_t> bin = best_fit_decreasing(sizes, out.length);
  out.rows = 1 + static_cast<int64_t>(*std::max_element(bin.begin(), bin.end()));
  out.ids.resize(static_cast<size_t>(out.rows * out.length));
  for (int64_t place = 0; place < out.rows * out.length; ++place)
    out.segment_start.push_back(static_cast<int32_t>(place % out.length));
  std::vector<int64_t> filled(static_cast<size_t>(out.rows));
  out.last.resize(sequences.size());
  for (size_t k = 0; k < order.size(); ++k) {
    const std::vector<int32_t>& ids = *sequences[order[k]];
    int64_t& at = filled[bin[k]];
    const int64_t begin = static_cast<int64_t>(bin[k]) * out.length + at;
    std::copy(ids.begin(), ids.end(), out.ids.begin() + begin);
    std::fill_n(out.segment_start.begin() + begin, ids.size(), static_cast<int32_t>(at));
    for (int64_t i = 0; i < std::ssize(ids); ++i) out.real.push_back(begin + i);
    at += std::ssize(ids);
    out.last[order[k]] = begin + std::ssize(ids) - 1;
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
                     TrainingPass pass, std::vector<ExpertLoad>* loads) {
  const AnswerRows rows = pack(sequences);
  const int64_t B = rows.rows, S = rows.length, D = model.config().width;
  pass.segment_start_BS = from_ids(rows.segment_start).view({B, S});
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
