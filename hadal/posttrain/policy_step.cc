#include "hadal/posttrain/policy_step.h"

#include <algorithm>
#include <cmath>

#include "hadal/model/choose_experts.h"
#include "hadal/ops/fused.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

// What the pass over some rows gives. K: their answers' tokens.
struct Pass {
  Tensor logp_K, entropy_K;
  std::vector<size_t> samples;  // in the order of the tokens
  int64_t routes_changed = 0, routes = 0;
};

TrainingPass training_pass(const PolicyRows& rows, int64_t first, int64_t n) {
  const int64_t X = rows.length;
  const auto part = [&](const std::vector<int32_t>& all, int64_t width) {
    return from_ids(
        std::span(all).subspan(static_cast<size_t>(first * X * width), static_cast<size_t>(n * X * width)));
  };
  TrainingPass pass;
  pass.segment_start_BS = part(rows.segment_start, 1).view({n, X});
  for (const std::vector<int32_t>& experts : rows.experts) {
    const int64_t A = static_cast<int64_t>(experts.size()) / (rows.rows * X);
    pass.chosen_TA.push_back(A > 0 ? part(experts, A).view({n * X, A}) : Tensor());
  }
  return pass;
}

// Where the experts, chosen by the policy as it is now, are others.
void compare_routes(const Transformer& model, const Trace& trace, const Tensor& real_T, Pass& pass) {
  NoGrad no_grad;
  for (const LayerTrace& layer : trace.layers) {
    if (!layer.is_moe) continue;
    const MoeWeights& w = model.weights().layers[static_cast<size_t>(layer.layer)].moe;
    const Tensor now_TA =
        choose_experts(model.config().moe, layer.routing.affinity_TE.detach(), w.balance_bias_E);
    const Tensor changed_T = now_TA.ne(layer.routing.expert_TA).any(-1);
    pass.routes_changed += changed_T.logical_and(real_T).sum().item<int64_t>();
    pass.routes += real_T.sum().item<int64_t>();
  }
}

Pass forward(const Transformer& model, const PolicyRows& rows, std::span<const PolicySample> samples,
             int64_t first, int64_t n, double temperature) {
  const int64_t X = rows.length;
  Pass out;
  std::vector<int64_t> places;
  std::vector<int32_t> targets;
  for (int64_t row = first; row < first + n; ++row)
    for (const size_t i : rows.samples_of[static_cast<size_t>(row)]) {
      const Sample& sample = *samples[i].sample;
      out.samples.push_back(i);
      int64_t at = (row - first) * X + rows.first_place[i] + std::ssize(*sample.prompt) - 1;
      for (const int32_t id : sample.ids) places.push_back(at++), targets.push_back(id);
    }
  const auto ids = std::span(rows.ids).subspan(static_cast<size_t>(first * X), static_cast<size_t>(n * X));
  Trace trace{.keep_rows = false};
  const Tensor hidden_BSD = model.forward(from_ids(ids).view({n, X}), nullptr, &trace, MlaForm::kAuto,
                                          training_pass(rows, first, n));
  if (!rows.experts.empty()) {
    const auto real =
        std::span(rows.real).subspan(static_cast<size_t>(first * X), static_cast<size_t>(n * X));
    compare_routes(model, trace, from_ids(real).to(at::kBool), out);
  }
  const Tensor hidden_KD = hidden_BSD.flatten(0, 1).index_select(0, from_ints(places));
  const TokenLogps logps =
      fused_token_logps(hidden_KD, model.weights().head_WD, from_ids(targets), temperature);
  out.logp_K = logps.logp_T, out.entropy_K = logps.entropy_T;
  return out;
}

// The numbers of the answers of one slot, flattened as its tokens are.
struct SlotNumbers {
  std::vector<int64_t> begin = {0};
  std::vector<double> logp, old_logp, reference, advantage;
  std::vector<uint8_t> mask;
  SlotNumbers(const Pass& pass, std::span<const PolicySample> samples) {
    for (const float x : to_floats(pass.logp_K.detach())) logp.push_back(x);
    for (const size_t i : pass.samples) {
      const PolicySample& s = samples[i];
      const auto& old = s.old->at_temperature;
      old_logp.insert(old_logp.end(), old.begin(), old.end());
      if (s.reference)
        reference.insert(reference.end(), s.reference->at_temperature.begin(),
                         s.reference->at_temperature.end());
      for (size_t t = 0; t < old.size(); ++t) mask.push_back(!s.masked && s.sample->is_written(t));
      advantage.push_back(s.advantage);
      begin.push_back(std::ssize(old_logp));
    }
  }
  PolicyBatch batch() const { return {begin, logp, old_logp, reference, mask, advantage}; }
};

PolicyStepResult slot_step(const Transformer& model, const PolicyRows& rows, const RowSlot& slot,
                           const PolicyStepConfig& config, std::span<const PolicySample> samples,
                           const PolicyDivisor& divisor) {
  const Pass pass = forward(model, rows, samples, slot.first, slot.rows, config.temperature);
  const SlotNumbers numbers(pass, samples);
  const PolicyLoss loss = policy_loss(config.loss, numbers.batch(), divisor);
  const std::vector<float> slopes(loss.gradient.begin(), loss.gradient.end());
  Tensor total = (pass.logp_K * from_floats(slopes)).sum();
  const std::vector<float> counts(numbers.mask.begin(), numbers.mask.end());
  PolicyStepResult out{.loss = loss.loss,
                       .tokens = loss.tokens,
                       .kl = loss.kl_sum,
                       .clipped_low = loss.clipped_low,
                       .clipped_high = loss.clipped_high,
                       .routes_changed = pass.routes_changed,
                       .routes = pass.routes};
  const Tensor entropy = (pass.entropy_K * from_floats(counts)).sum();
  out.entropy = entropy.item<double>();
  if (config.entropy > 0) {
    const double share = config.entropy / static_cast<double>(std::max<int64_t>(1, divisor.tokens));
    total = total - share * entropy;
    out.loss -= share * out.entropy;
  }
  for (size_t t = 0; t < numbers.logp.size(); ++t) {
    const double off = std::abs(numbers.logp[t] - numbers.old_logp[t]);
    out.logp_difference_sum += numbers.mask[t] ? off : 0;
    out.logp_difference_max = std::max(out.logp_difference_max, off);
  }
  total.backward();
  return out;
}

}  // namespace

void add(PolicyStepResult& sum, const PolicyStepResult& part) {
  sum.loss += part.loss, sum.tokens += part.tokens, sum.kl += part.kl, sum.entropy += part.entropy;
  sum.clipped_low += part.clipped_low, sum.clipped_high += part.clipped_high;
  sum.logp_difference_sum += part.logp_difference_sum;
  sum.logp_difference_max = std::max(sum.logp_difference_max, part.logp_difference_max);
  sum.routes_changed += part.routes_changed, sum.routes += part.routes;
}

Tensor answer_logps(const Transformer& model, const PolicyRows& rows, std::span<const PolicySample> samples,
                    double temperature) {
  return forward(model, rows, samples, 0, rows.rows, temperature).logp_K;
}

PolicyStepResult policy_step(GradientWorkers& workers, const ModelConfig& model,
                             const PolicyStepConfig& config, std::span<const PolicySample> samples,
                             PolicyDivisor divisor) {
  PolicyStepResult out;
  if (samples.empty()) return out;
  const PolicyRows rows = pack_policy_rows(model, samples, config.row_tokens, config.replay_routes);
  const std::vector<RowSlot> slots = row_slots(rows.rows, config.micro, config.workers);
  divisor.micro_batches = std::ssize(slots);
  if (divisor.completions == 0) divisor.completions = std::ssize(samples);
  if (divisor.tokens == 0)
    for (const PolicySample& s : samples) divisor.tokens += s.masked ? 0 : s.sample->num_written();
  std::vector<PolicyStepResult> parts(slots.size());
  SlotResults sums =
      workers.run(slots, 0, std::ssize(slots), [&](const Transformer& replica, const RowSlot& slot) {
        parts[static_cast<size_t>(&slot - slots.data())] =
            slot_step(replica, rows, slot, config, samples, divisor);
        return StepLoss{};
      });
  for (const PolicyStepResult& part : parts) add(out, part);
  out.gradients = std::move(sums.gradients.pieces().front().value);
  for (Tensor& gradient : out.gradients)
    if (gradient.defined()) gradient = gradient.contiguous();
  return out;
}

}  // namespace hadal
