#include "hadal/planner/cluster_plan.h"

#include <algorithm>
#include <numeric>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/planner.h"
#include "hadal/planner/unit_cost.h"

namespace hadal {
namespace {

constexpr double kTera = 1e12, kGiga = 1e9, kGiB = 1024.0 * 1024 * 1024;

// One plan while it is made.
class Planning {
 public:
  Planning(const ClusterJob& job, const ClusterLayout& layout, const ClusterFacts& facts)
      : job_(job), l_(layout), f_(facts), spread_(exchange_spread(job, layout, facts)) {
    tokens_ = static_cast<double>(job.length * layout.micro);
    plan_.layout = layout, plan_.microbatches = num_microbatches(job, layout);
    shape_ = {static_cast<int>(layout.pp), static_cast<int>(plan_.microbatches),
              static_cast<int>(layout.chunks)};
    placing_ = {
        .kind = layout.schedule, .shape = shape_, .stages = static_cast<int>(layout.stages()), .actions = {}};
    split();
  }

  // Without speed: enough to know whether it can fit.
  double least_memory() const {
    double most = 0;
    for (int r = 0; r < shape_.ranks; ++r) most = std::max(most, state_of(r).total());
    return most;
  }
  ClusterPlan finish() {
    std::vector<double> kept;
    for (const UnitCost& s : sums_) kept.push_back(s.kept * tokens_);
    plan_.pipeline = run_pipeline(l_.schedule, shape_, plan_.stages, kept);
    for (int r = 0; r < shape_.ranks; ++r) {
      ClusterMemory m = state_of(r);
      m.activations = plan_.pipeline.peak_kept[static_cast<size_t>(r)];
      plan_.memory.push_back(m);
    }
    exchange_of_a_step();
    speed();
    return std::move(plan_);
  }

 private:
  double seconds(double gemm, double gemm_bf16, double passes) const {
    const double peak = job_.fp8 ? f_.peak_fp8_tflops * f_.gemm_fp8 : f_.peak_bf16_tflops * f_.gemm_bf16;
    return gemm / (peak * kTera) + gemm_bf16 / (f_.peak_bf16_tflops * f_.gemm_bf16 * kTera) +
           passes / (f_.memory_gbps * f_.memory_share * kGiga);
  }

  double inter_seconds(double bytes) const { return bytes / (f_.inter_gbps * f_.inter_share * kGiga); }
  double intra_seconds(double bytes) const { return bytes / (f_.intra_gbps * f_.intra_share * kGiga); }
  bool one_node() const { return job_.gpus <= f_.gpus_per_node; }

  // Rows in FP8 with a scale for 128 values, sums in BF16 (V3 report, 3.3.3).
  double dispatch_bytes() const {
    return static_cast<double>(job_.model.width) * (job_.fp8 ? 1 + 4.0 / 128 : 2);
  }
  double combine_bytes() const { return 2.0 * static_cast<double>(job_.model.width); }
  // Of a rank's own tokens, for one micro-batch.
  double routed_tokens() const { return tokens_ / static_cast<double>(l_.tp); }

  double all_to_all_seconds() const {  // there and back, of one layer
    double sum = 2 * f_.exchange_ms / 1000;
    for (const double bytes : {dispatch_bytes(), combine_bytes()}) {
      const double sent = bytes * routed_tokens() * f_.expert_imbalance;
      sum += std::max(inter_seconds(sent * spread_.inter), intra_seconds(sent * spread_.intra));
    }
    return sum;
  }
  double tensor_bytes() const {  // of one all-reduce
    const auto t = static_cast<double>(l_.tp);
    return tokens_ * 2 * static_cast<double>(job_.model.width) * 2 * (t - 1) / t;
  }
  double hop_bytes() const {
    return l_.pp == 1 ? 0 : routed_tokens() * 2 * static_cast<double>(job_.model.width);
  }

  StageTimes times_of(const UnitCost& u) const {
    StageTimes t;
    const double T = tokens_, attention = f_.peak_bf16_tflops * kTera;
    const double hop = one_node() ? intra_seconds(hop_bytes()) : inter_seconds(hop_bytes());
    const double all_to_all = all_to_all_seconds(), sum = intra_seconds(tensor_bytes());
    t.forward =
        T * (seconds(u.gemm, u.gemm_bf16, u.passes) + u.attention / (attention * f_.attention_forward));
    // Of the backward pass's bytes three quarters are for the gradient of the input.
    t.input_grad = T * (seconds(u.gemm + u.gemm_again, u.gemm_bf16, 1.5 * u.passes + u.passes_again) +
                        u.attention_backward / (attention * f_.attention_backward));
    t.weight_grad = T * seconds(u.gemm, u.gemm_bf16, 0.5 * u.passes);
    t.forward_exchange = u.exchanges * all_to_all + u.tensor_sums * sum + hop;
    t.backward_exchange = (u.exchanges + u.exchanges_again) * all_to_all + u.tensor_sums * sum + hop;
    return t;
  }

  void split() {
    const std::vector<UnitCost> units = unit_costs(job_, l_, f_);
    std::vector<double> costs;
    for (const UnitCost& u : units) {
      const StageTimes t = times_of(u);
      const double exchange = l_.overlaps() ? 0 : t.forward_exchange + t.backward_exchange;
      costs.push_back(t.forward + t.input_grad + t.weight_grad + exchange);
    }
    plan_.first_units = balanced_split(costs, l_.stages());
    for (size_t s = 0; s + 1 < plan_.first_units.size(); ++s) {
      UnitCost sum;
      for (int64_t u = plan_.first_units[s]; u < plan_.first_units[s + 1]; ++u)
        sum += units[static_cast<size_t>(u)];
      plan_.stages.push_back(times_of(sum));
      sums_.push_back(sum);
    }
  }

  UnitCost held_by(int rank) const {
    UnitCost sum;
    for (const int s : placing_.stages_of(rank)) sum += sums_[static_cast<size_t>(s)];
    if (job_.model.tied_head && placing_.stages_of(rank).size() > 1 && sum.logits > 0)
      sum.tables = static_cast<double>(job_.model.vocab_size * job_.model.width);
    return sum;
  }
  // Ranks that hold the same: over these master weights and moments are shared out.
  double dense_copies() const { return static_cast<double>(l_.dp * l_.copies()); }
  double expert_copies() const { return static_cast<double>(l_.dp * l_.tp / l_.ep * l_.copies()); }

  // All but the activations.
  ClusterMemory state_of(int rank) const {
    const UnitCost u = held_by(rank);
    ClusterMemory m;
    const double scaled = u.dense + u.experts;  // FP8 with a scale for 128 x 128 values
    m.weights = (job_.fp8 ? 1 + 4.0 / (128 * 128) : 2) * scaled + 2 * u.tables;
    m.gradients = 4 * (scaled + u.tables);
    const double mine =
        l_.zero1 ? (u.dense + u.tables) / dense_copies() + u.experts / expert_copies() : scaled + u.tables;
    m.master = 4 * mine;
    m.moments = (job_.bf16_moments ? 4 : 8) * mine;
    m.logits = u.logits * tokens_;
    // One micro-batch's rows there and back, twice where a forward and a backward pass run side by side.
    if (u.exchanges > 0)
      m.buffers = (l_.overlaps() ? 2 : 1) * routed_tokens() * f_.expert_imbalance * spread_.ranks *
                  (dispatch_bytes() + combine_bytes());
    m.reserve = f_.reserve_gib * kGiB;
    return m;
  }

  void exchange_of_a_step() {
    ClusterTraffic& t = plan_.traffic;
    const double each = static_cast<double>(plan_.microbatches) / static_cast<double>(l_.copies());
    for (int r = 0; r < shape_.ranks; ++r) {
      const UnitCost u = held_by(r);
      const auto stages = static_cast<double>(placing_.stages_of(r).size());
      const double layers = (2 * u.exchanges + u.exchanges_again) * each * routed_tokens();
      const auto most = [](double& place, double value) { place = std::max(place, value); };
      most(t.pipeline, 2 * stages * each * hop_bytes());
      most(t.dispatch_inter, layers * dispatch_bytes() * spread_.inter);
      most(t.dispatch_intra, layers * dispatch_bytes() * spread_.intra);
      most(t.combine_inter, layers * combine_bytes() * spread_.inter);
      most(t.combine_intra, layers * combine_bytes() * spread_.intra);
      most(t.tensor, 2 * u.tensor_sums * each * tensor_bytes());
      const double shared =
          (u.dense + u.tables) * (1 - 1 / dense_copies()) + u.experts * (1 - 1 / expert_copies());
      most(t.reduce_scatter, 4 * shared);
      most(t.all_gather, 2 * shared);
    }
    const double bytes = t.reduce_scatter + t.all_gather;
    plan_.reduction_seconds =
        f_.reduction_exposed * (one_node() ? intra_seconds(bytes) : inter_seconds(bytes));
    // Gradient read twice, master and moments read and written, weights written.
    double mine = 0;
    for (const ClusterMemory& m : plan_.memory) mine = std::max(mine, m.master / 4);
    plan_.optimizer_seconds =
        mine * (job_.bf16_moments ? 26 : 34) / (f_.memory_gbps * f_.memory_share * kGiga);
  }

  void speed() {
    ClusterPlan& p = plan_;
    const auto gpus = static_cast<double>(job_.gpus), tokens = static_cast<double>(job_.batch * job_.length);
    p.step_seconds = p.pipeline.seconds + p.reduction_seconds + p.optimizer_seconds;
    const double idle = std::accumulate(p.pipeline.idle.begin(), p.pipeline.idle.end(), 0.0);
    p.bubble = idle / (p.pipeline.seconds * static_cast<double>(l_.pp));
    p.tokens_per_second = tokens / p.step_seconds;
    p.flops_per_token = 3.0 * static_cast<double>(prefill_flops(job_.model, job_.length).total());
    const double rate = p.tokens_per_second * p.flops_per_token / gpus / kTera;
    p.mfu_bf16 = rate / f_.peak_bf16_tflops, p.mfu_fp8 = rate / f_.peak_fp8_tflops;
    p.hours_per_trillion = 1e12 / p.tokens_per_second * gpus / 3600;
    p.cost_per_trillion = p.hours_per_trillion * f_.price;
  }

  const ClusterJob& job_;
  const ClusterLayout l_;
  const ClusterFacts& f_;
  const ExchangeSpread spread_;
  double tokens_ = 0;  // of a micro-batch
  ScheduleShape shape_;
  Schedule placing_;            // without actions: which rank holds which stages
  std::vector<UnitCost> sums_;  // of the stages
  ClusterPlan plan_;
};

std::vector<int64_t> divisors(int64_t n) {
  std::vector<int64_t> all;
  for (int64_t d = 1; d <= n; ++d)
    if (n % d == 0) all.push_back(d);
  return all;
}

// Keeps the `most` fastest; what cannot be among them is not played.
class Search {
 public:
  Search(const ClusterJob& job, const ClusterFacts& facts, size_t most) : job_(job), f_(facts), most_(most) {}

  ClusterProposal run() {
    for (const int64_t pp : divisors(job_.gpus)) {
      if (pp > job_.model.num_layers) break;
      for (const int64_t tp : divisors(std::min(f_.gpus_per_node, job_.gpus / pp)))
        if (job_.gpus / pp % tp == 0) spread(pp, tp);
    }
    return std::move(found_);
  }

 private:
  void spread(int64_t pp, int64_t tp) {
    const int64_t dp = job_.gpus / pp / tp, E = job_.model.moe.num_experts;
    for (const int64_t ep : divisors(E > 0 ? E : 1)) {
      if (ep > dp) break;
      for (const ScheduleKind kind : all_schedules()) {
        if (pp == 1 && kind != ScheduleKind::kOneFOneB) continue;  // all the same
        for (const int64_t micro : {1, 2, 4, 8})
          for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull})
            consider({.pp = pp,
                      .ep = ep,
                      .dp = dp,
                      .tp = tp,
                      .schedule = kind,
                      .micro = micro,
                      .recompute = recompute});
      }
    }
  }

  void consider(const ClusterLayout& layout) {
    ++found_.tried;
    if (const auto broken = broken_rule(job_, layout, f_)) {
      ++found_.refused[broken->name];
      return;
    }
    Planning planning(job_, layout, f_);
    if (planning.least_memory() > f_.memory_gib * kGiB) {
      ++found_.refused["memory of a GPU"];
      return;
    }
    keep(planning.finish());
  }

  void keep(ClusterPlan plan) {
    if (!plan.fits(f_)) {
      ++found_.refused["memory of a GPU"];
      return;
    }
    ++found_.fitting;
    auto& best = found_.best;
    const auto faster = [](const ClusterPlan& a, const ClusterPlan& b) {
      if (a.step_seconds != b.step_seconds) return a.step_seconds < b.step_seconds;
      return a.fullest().total() < b.fullest().total();
    };
    best.insert(std::upper_bound(best.begin(), best.end(), plan, faster), std::move(plan));
    if (best.size() > most_) best.pop_back();
  }

  const ClusterJob& job_;
  const ClusterFacts& f_;
  const size_t most_;
  ClusterProposal found_;
};

}  // namespace

const ClusterMemory& ClusterPlan::fullest() const {
  return *std::max_element(memory.begin(), memory.end(), [](const ClusterMemory& a, const ClusterMemory& b) {
    return a.total() < b.total();
  });
}

bool ClusterPlan::fits(const ClusterFacts& facts) const {
  return fullest().total() <= facts.memory_gib * kGiB;
}

ClusterPlan plan_cluster(const ClusterJob& job, const ClusterLayout& layout, const ClusterFacts& facts) {
  if (const auto broken = broken_rule(job, layout, facts))
    throw Error(ErrorCode::kInvalidArgument,
                cat("[plan.layout] ", broken->text, ". Rule: ", broken->name, "."));
  return Planning(job, layout, facts).finish();
}

ClusterProposal propose_layouts(const ClusterJob& job, const ClusterFacts& facts, size_t most) {
  return Search(job, facts, most).run();
}

}  // namespace hadal
