// DeepSeekMoE by union: each chosen expert's weights are read once for all rows that chose it.
#include <algorithm>
#include <numeric>

#include "hadal/network/routing.h"
#include "hadal/network/step.h"

namespace hadal {
namespace {

constexpr int64_t kSmallRouter = 1 << 16;  // multiply-adds that every worker may rather repeat than wait for
// Reading a matrix costs about as much as multiplying it with so many rows.
constexpr int64_t kReadRows = 4;

}  // namespace

void Network::mixture(const LayerView& view, int64_t index, const Step& step, int worker) {
  const MoeView& moe = view.moe;
  const int64_t D = weights_.config.width, T = step.T;
  const MlpView& first = moe.experts.front();
  const float* x = normed(step, worker, ws_->x.data(), D, view.ffn_norm, D);
  const PreparedRows& input =
      prepare(step, worker, &WorkerScratch::input, x, D, T, D,
              {&moe.router, &first.gate, &first.up, &moe.shared.gate, &moe.shared.up});
  choose_experts(moe, index, step, input, worker);
  expert_hidden(step, input, worker);
  pool_.barrier();
  expert_outputs(step, worker);
  pool_.barrier();
}

// Ends with a barrier: every worker knows every token's experts.
void Network::choose_experts(const MoeView& moe, int64_t index, const Step& step, const PreparedRows& input,
                             int worker) {
  const MoeConfig& config = weights_.config.moe;
  const int64_t T = step.T, E = config.num_experts, A = config.top_k;
  const bool whole = T * E * weights_.config.width <= kSmallRouter;
  const WorkRange tokens = split_work(T, 1, worker, pool_.size());
  float* logit = ws_->router.data();
  if (worker == 0) {
    ws_->expert[static_cast<size_t>(index)].resize(static_cast<size_t>(T * A));
    ws_->weight[static_cast<size_t>(index)].resize(static_cast<size_t>(T * A));
  }
  if (!whole) {
    multiply(moe.router, input, nullptr, T, logit, E, split_work(E, 4, worker, pool_.size()), worker);
    pool_.barrier();
  } else if (worker == 0) {
    multiply(moe.router, input, nullptr, T, logit, E, {0, E}, worker);
  }
  const WorkRange mine = whole ? (worker == 0 ? WorkRange{0, T} : WorkRange{}) : tokens;
  WorkerScratch& own = ws_->worker[static_cast<size_t>(worker)];
  for (int64_t t = mine.first; t < mine.last; ++t)
    route_token(config, logit + t * E, moe.balance_bias, own.choice.data(), own.choice.data() + E,
                ws_->expert[static_cast<size_t>(index)].data() + t * A,
                ws_->weight[static_cast<size_t>(index)].data() + t * A);
  if (!whole) pool_.barrier();
  if (worker == 0) group_by_expert(moe, index, step);
  pool_.barrier();
}

// Places of (token, choice) in expert order, tokens ascending within an expert; one item per chosen expert.
void Network::group_by_expert(const MoeView& moe, int64_t index, const Step& step) {
  const MoeConfig& config = weights_.config.moe;
  const int64_t T = step.T, A = config.top_k, M = config.expert_dim;
  const std::vector<int32_t>& expert = ws_->expert[static_cast<size_t>(index)];
  ws_->begin.assign(static_cast<size_t>(config.num_experts) + 1, 0);
  for (const int32_t e : expert) ++ws_->begin[static_cast<size_t>(e) + 1];
  std::partial_sum(ws_->begin.begin(), ws_->begin.end(), ws_->begin.begin());
  ws_->items.clear();
  for (int64_t e = 0; e < config.num_experts; ++e) {
    const int64_t first = ws_->begin[static_cast<size_t>(e)],
                  count = ws_->begin[static_cast<size_t>(e) + 1] - first;
    if (count > 0)
      ws_->items.push_back(
          {&moe.experts[static_cast<size_t>(e)], first, count, first * M, ws_->token.data() + first});
  }
  for (int64_t u = 0; u < T * A; ++u) {
    const int64_t place = ws_->begin[static_cast<size_t>(expert[static_cast<size_t>(u)])]++;
    ws_->token[static_cast<size_t>(place)] = static_cast<int32_t>(u / A);
    ws_->place_weight[static_cast<size_t>(place)] =
        ws_->weight[static_cast<size_t>(index)][static_cast<size_t>(u)];
  }
  if (moe.shared.gate.N > 0) ws_->items.push_back({&moe.shared, T * A, T, T * A * M, nullptr});
}

// Gate, up and their product for all items; workers share the outputs of all items by cost.
void Network::expert_hidden(const Step& step, const PreparedRows& input, int worker) {
  const auto unit = [](const ExpertItem& item) { return item.count + kReadRows; };
  int64_t total = 0;
  for (const ExpertItem& item : ws_->items) total += item.weights->gate.N * unit(item);
  const int64_t begin = total * worker / pool_.size(), end = total * (worker + 1) / pool_.size();
  int64_t at = 0;
  for (const ExpertItem& item : ws_->items) {
    const int64_t M = item.weights->gate.N, cost = unit(item);
    const auto output = [&](int64_t bound) {
      const int64_t n = std::clamp<int64_t>((bound - at) / cost, 0, M);
      return n == M ? M : n / kOutputUnit * kOutputUnit;
    };
    // The last worker's end is the total, so nothing is left over.
    const WorkRange n{output(begin), end == total ? M : output(end)};
    at += M * cost;
    if (n.first >= n.last) continue;
    float *gate = ws_->gate.data() + item.value, *up = ws_->up.data() + item.value;
    multiply(item.weights->gate, input, item.tokens, item.count, gate, M, n, worker);
    multiply(item.weights->up, input, item.tokens, item.count, up, M, n, worker);
    for (int64_t i = 0; i < item.count; ++i)
      infer_kernels().swiglu(gate + i * M + n.first, up + i * M + n.first, gate + i * M + n.first,
                             n.last - n.first);
  }
}

// Down-projections, added to the stream: routed experts ascending, each times its weight, then the shared
// one.
void Network::expert_outputs(const Step& step, int worker) {
  const int64_t D = weights_.config.width, T = step.T;
  const InferKernels& kernels = infer_kernels();
  PreparedRows& prepared = ws_->worker[step.redundant ? static_cast<size_t>(worker) : 0].second;
  for (const ExpertItem& item : ws_->items) {
    const WeightView& down = item.weights->down;
    const size_t layout = static_cast<size_t>(kernels.layout_of(down.format));
    const int64_t bytes = kernels.prepared_bytes(down.format, down.K);
    const WorkRange rows =
        step.redundant ? WorkRange{0, item.count} : split_work(item.count, 1, worker, pool_.size());
    kernels.prepare_rows(
        down.format, ws_->gate.data() + item.value + rows.first * down.K, down.K, rows.last - rows.first,
        down.K, prepared.rows[layout].data() + prepared_offset(item, down.format) + rows.first * bytes);
  }
  if (!step.redundant) pool_.barrier();
  const WorkRange d = split_work(D, kOutputUnit, worker, pool_.size());
  const int64_t width = d.last - d.first;
  WorkerScratch& own = ws_->worker[static_cast<size_t>(worker)];
  float *mixed = ws_->mixed.data(), *part = own.product.data();
  for (int64_t t = 0; t < T; ++t) std::fill_n(mixed + t * D + d.first, width, 0.0f);
  for (const ExpertItem& item : ws_->items) {
    const WeightView& down = item.weights->down;
    const size_t layout = static_cast<size_t>(kernels.layout_of(down.format));
    kernels.dot_rows(rows_of(down, d.first, width),
                     prepared.rows[layout].data() + prepared_offset(item, down.format), nullptr, item.count,
                     part, width, 0, width, own.dot.data());
    for (int64_t i = 0; i < item.count; ++i) {
      const int64_t t = item.tokens ? item.tokens[i] : i;
      const float weight = item.tokens ? ws_->place_weight[static_cast<size_t>(item.first + i)] : 1.0f;
      kernels.add_scaled(part + i * width, weight, mixed + t * D + d.first, width);
    }
  }
  add_to_stream(step, mixed, d);
}

// Bytes before the item's prepared hidden rows: routed rows are all of one length, the shared ones follow.
int64_t Network::prepared_offset(const ExpertItem& item, WeightFormat format) const {
  const int64_t M = weights_.config.moe.expert_dim;
  return item.first * infer_kernels().prepared_bytes(format, M);
}

}  // namespace hadal
