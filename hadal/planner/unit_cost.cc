#include "hadal/planner/unit_cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hadal/base/check.h"

namespace hadal {
namespace {

// The sizes as double, cut by tp where tp cuts.
struct Sizes {
  Sizes(const ClusterJob& job, const ClusterLayout& l, const ClusterFacts& facts) {
    const ModelConfig& c = job.model;
    D = static_cast<double>(c.width), W = static_cast<double>(c.vocab_size),
    T = static_cast<double>(job.length);
    tp = static_cast<double>(l.tp);
    H = static_cast<double>(c.mla.num_heads) / tp;
    K = static_cast<double>(c.mla.key_dim()), N = static_cast<double>(c.mla.nope_dim);
    V = static_cast<double>(c.mla.value_dim), Q = static_cast<double>(c.mla.query_latent);
    C = static_cast<double>(c.mla.kv_latent), R = static_cast<double>(c.mla.rope_dim);
    F = static_cast<double>(c.dense_dim) / tp, M = static_cast<double>(c.moe.expert_dim);
    S = static_cast<double>(c.moe.num_shared) * M / tp;
    E = static_cast<double>(c.moe.num_experts), A = static_cast<double>(c.moe.top_k);
    ep = static_cast<double>(l.ep);
    e = job.fp8 ? 1 : 2;
    reached = exchange_spread(job, l, facts).ranks;
    fp8 = job.fp8;
  }
  double D, W, T, tp, H, K, N, V, Q, C, R, F, M, S, E, A, ep, e, reached;
  bool fp8;
  // Bytes of a pass that makes a product's input from a BF16 tensor: FP8 needs one, BF16 none.
  double cast(double values) const { return fp8 ? 3 * values : 0; }
};

UnitCost attention_cost(const Sizes& s, Recompute recompute) {
  UnitCost u;
  const double up = (s.Q > 0 ? s.Q * s.H * s.K : 0) + s.C * s.H * (s.N + s.V);
  const double query = s.Q > 0 ? s.D * s.Q : s.D * s.H * s.K;
  u.dense = query + up + s.D * (s.C + s.R) + s.H * s.V * s.D + s.Q + s.C + 2 * s.D;
  u.gemm = 2 * (query + up + s.D * (s.C + s.R) + s.H * s.V * s.D);
  u.attention = s.H * (s.K + s.V) * (s.T + 1);                             // as prefill_flops()
  u.attention_backward = u.attention * (3 * s.K + 2 * s.V) / (s.K + s.V);  // scores again, four gradients
  const double norms = 4 * s.D + s.cast(s.D) + 4 * (s.Q + s.C) + s.cast(s.Q + s.C);
  u.passes =
      norms + 8 * s.H * s.K + s.cast(s.H * s.V) + 6 * s.D;  // rotation and joining of q and k; residual
  u.tensor_sums = s.tp > 1 ? 1 : 0;
  const double latents = 2 * (s.Q + s.C + s.R), sums = 4 * s.H;
  if (recompute == Recompute::kNone)
    u.kept = (2 + s.e) * s.D + latents + s.e * (s.Q + s.C) + 2 * s.H * (2 * s.K + 2 * s.V) + sums;
  if (recompute == Recompute::kSelective) {
    u.kept = 2 * s.D + latents + (s.fp8 ? 1.5 : 2) * s.H * s.V + sums;  // FP8: the output in 12 bits
    u.gemm_again = 2 * up, u.passes_again = norms;
  }
  return u;
}

UnitCost ffn_cost(const Sizes& s, bool is_moe, Recompute recompute) {
  UnitCost u;
  const double wide = is_moe ? s.S : s.F;  // of the part that every token takes
  const double routed = is_moe ? s.A * s.M / s.tp : 0, rows = is_moe ? s.reached / s.tp : 0;
  u.dense = 3 * s.D * wide + (is_moe ? s.D * s.E : 0);
  u.experts = is_moe ? 3 * s.D * s.M * s.E / s.ep : 0;
  u.gemm = 2 * 3 * s.D * (wide + routed);
  u.gemm_bf16 = is_moe ? 2 * s.D * s.E : 0;
  const double norm = 4 * s.D + s.cast(s.D), swiglu = (4 + s.e) * (wide + routed);
  // Rows to the experts' order; their sum on the way back, per rank.
  const double sorting =
      is_moe ? s.e * s.D * (rows + s.A / s.tp) + 2 * s.D * (s.A / s.tp + rows) + 2 * s.D : 0;
  u.passes = norm + swiglu + sorting + 6 * s.D;
  u.exchanges = is_moe && s.ep > 1 ? 1 : 0;
  u.tensor_sums = s.tp > 1 ? 1 : 0;
  const double choice = is_moe ? 4 * s.E + 8 * s.A : 0;
  if (recompute == Recompute::kFull) u.kept = 8 * s.A * (is_moe ? 1 : 0);
  if (recompute != Recompute::kFull)
    u.kept = (2 + s.e) * s.D + s.e * (2 * (wide + routed) + rows * s.D) + choice;
  if (recompute == Recompute::kNone) u.kept += s.e * (wide + routed);
  if (recompute == Recompute::kSelective) u.passes_again = norm + swiglu;
  return u;
}

UnitCost layer_cost(const Sizes& s, bool is_moe, Recompute recompute) {
  UnitCost u = attention_cost(s, recompute);
  u += ffn_cost(s, is_moe, recompute);
  if (recompute == Recompute::kFull) {
    u.kept += 2 * s.D;
    u.gemm_again = u.gemm + u.gemm_bf16, u.passes_again = u.passes, u.exchanges_again = u.exchanges;
    u.attention_backward += u.attention;
  }
  return u;
}

UnitCost head_cost(const Sizes& s) {
  UnitCost u;
  u.gemm_bf16 = 2 * s.W * s.D;
  u.passes = 3 * 4 * s.W;  // logits written, read for the sum, replaced by their gradient
  u.kept = 2 * s.D;
  return u;
}

UnitCost end_cost(const ClusterJob& job, const Sizes& s, const ClusterLayout& l) {
  UnitCost u = head_cost(s);
  u.logits = 4 * s.W;
  u.dense = s.D;
  u.tables = s.W * s.D;  // the head; tied with the first stage it is a copy there
  for (int64_t j = 0; j < job.model.mtp_depth; ++j) {
    u += layer_cost(s, s.E > 0, l.recompute);
    u += head_cost(s);
    u.gemm_bf16 += 2 * 2 * s.D * s.D;
    u.dense += 2 * s.D * s.D + 3 * s.D;
    u.kept += 2 * 2 * s.D;
  }
  const bool ends_apart = l.pp > 1 && l.copies() == 1 && l.schedule != ScheduleKind::kZeroBubbleV &&
                          l.schedule != ScheduleKind::kDualPipeV;
  if (job.model.mtp_depth > 0 && ends_apart) u.tables += s.W * s.D;  // a copy of the embedding
  if (job.model.tied_head && !ends_apart) u.tables = 0;
  return u;
}

// Different ones among `draws` even draws of `of`.
double distinct(double of, double draws) {
  return of * (1 - std::pow(1 - 1 / of, draws));
}

}  // namespace

UnitCost& UnitCost::operator+=(const UnitCost& o) {
  gemm += o.gemm, gemm_bf16 += o.gemm_bf16, gemm_again += o.gemm_again;
  attention += o.attention, attention_backward += o.attention_backward;
  passes += o.passes, passes_again += o.passes_again;
  exchanges += o.exchanges, exchanges_again += o.exchanges_again, tensor_sums += o.tensor_sums;
  kept += o.kept, logits = std::max(logits, o.logits);
  dense += o.dense, tables += o.tables, experts += o.experts;
  return *this;
}

ExchangeSpread exchange_spread(const ClusterJob& job, const ClusterLayout& l, const ClusterFacts& facts) {
  ExchangeSpread spread;
  const MoeConfig& moe = job.model.moe;
  if (moe.num_experts == 0 || l.ep == 1) return spread;
  const int64_t per_node = std::clamp<int64_t>(facts.gpus_per_node / l.tp, 1, l.ep);
  const int64_t nodes = (l.ep + per_node - 1) / per_node;
  // Groups hold the node limit where they lie on nodes of their own.
  const bool limited = moe.num_groups > 1 && moe.num_groups % nodes == 0;
  const auto allowed = static_cast<double>(limited ? std::min(nodes, moe.num_groups_kept) : nodes);
  const auto K = static_cast<double>(moe.top_k), n = static_cast<double>(nodes),
             g = static_cast<double>(per_node);
  spread.nodes = distinct(allowed, K);
  spread.ranks = distinct(allowed * g, K);
  spread.inter = spread.nodes * (n - 1) / n;
  spread.intra = spread.ranks * (g - 1) / g;
  return spread;
}

std::vector<UnitCost> unit_costs(const ClusterJob& job, const ClusterLayout& l, const ClusterFacts& facts) {
  const Sizes s(job, l, facts);
  std::vector<UnitCost> units;
  for (int64_t layer = 0; layer < job.model.num_layers; ++layer)
    units.push_back(layer_cost(s, job.model.is_moe(layer), l.recompute));
  units.front().tables += s.W * s.D;
  units.front().passes += 4 * s.D;
  units.push_back(end_cost(job, s, l));
  return units;
}

std::vector<int64_t> balanced_split(const std::vector<double>& costs, int64_t stages) {
  const auto U = static_cast<int64_t>(costs.size());
  HADAL_CHECK(stages >= 1 && stages <= U);
  const size_t width = costs.size() + 1;
  const double never = std::numeric_limits<double>::infinity();
  std::vector<double> before(width);
  for (size_t i = 0; i < costs.size(); ++i) before[i + 1] = before[i] + costs[i];
  // best[k][i]: of the first i units in k stages, by (largest, squares); cut[k][i]: where the last begins.
  struct Best {
    double largest, squares;
  };
  const auto rows = static_cast<size_t>(stages) + 1;
  std::vector<std::vector<Best>> best(rows, std::vector<Best>(width, {never, never}));
  std::vector<std::vector<int64_t>> cut(rows, std::vector<int64_t>(width));
  best[0][0] = {0, 0};
  for (size_t k = 1; k < rows; ++k)
    for (size_t i = k; i < width; ++i)
      for (size_t j = k - 1; j < i; ++j) {
        const double part = before[i] - before[j];
        const Best now{std::max(best[k - 1][j].largest, part), best[k - 1][j].squares + part * part};
        const bool better = now.largest < best[k][i].largest * (1 - 1e-12) ||
                            (now.largest <= best[k][i].largest && now.squares < best[k][i].squares);
        if (better) best[k][i] = now, cut[k][i] = static_cast<int64_t>(j);
      }
  std::vector<int64_t> first(rows);
  first.back() = U;
  for (size_t k = rows - 1; k > 0; --k) first[k - 1] = cut[k][static_cast<size_t>(first[k])];
  return first;
}

}  // namespace hadal
