#include "hadal/planner/cluster_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "hadal/base/random.h"
#include "hadal/error.h"
#include "hadal/planner.h"
#include "hadal/planner/unit_cost.h"

namespace hadal {
namespace {

ClusterJob v3_job() {
  return {.model = preset("v3"), .gpus = 2048};
}

ClusterPlan v3_plan(const ClusterFacts& facts = {}) {
  return plan_cluster(v3_job(), parse_layout("pp=16,ep=64,schedule=dualpipe", 2048), facts);
}

double share_off(double got, double published) {
  return std::abs(got / published - 1);
}

TEST(ClusterPlan, V3CostsThePublishedHoursATrillionTokens) {
  // V3 report, 1: 180K H800 hours a trillion tokens; 3.2: 2048 GPUs, 16-way pipeline, 64-way experts, ZeRO-1.
  const ClusterPlan plan = v3_plan();
  EXPECT_LT(share_off(plan.hours_per_trillion, 180e3), 0.15) << plan.hours_per_trillion;
  EXPECT_EQ(plan.layout.dp, 128);
  EXPECT_TRUE(plan.fits({}));                     // 3.2: no tensor parallelism was needed
  EXPECT_NEAR(plan.flops_per_token, 250e9, 1e9);  // 2505.09343: 250 GFLOPs a token
}

TEST(ClusterPlan, V2CostsThePublishedHoursATrillionTokens) {
  // V2 report, 3.2.3: 172.8K H800 hours; 3.1.3: 16-way zero-bubble pipeline, 8-way experts, ZeRO-1, BF16. How
  // many GPUs is not said.
  for (const int64_t gpus : {512, 1024, 2048}) {
    const ClusterJob job{
        .model = preset("v2"), .gpus = gpus, .batch = 9216, .fp8 = false, .bf16_moments = false};
    const ClusterPlan plan = plan_cluster(job, parse_layout("pp=16,ep=8,schedule=zb-h1", gpus), {});
    EXPECT_LT(share_off(plan.hours_per_trillion, 172.8e3), 0.15) << gpus << ": " << plan.hours_per_trillion;
    EXPECT_TRUE(plan.fits({}));
  }
}

TEST(ClusterPlan, APairOfV3sChunksTakesWhatThePublishedTraceShows) {
  // profile-data, train.json: four MoE layers, one forward and one backward of 4096 tokens, EP 64: 124.3 ms
  // of kernels on the computing streams, of which 69.3 products and 22.0 attention; dispatch 3.4, combine 6.2
  // ms a layer.
  const ClusterPlan plan = v3_plan();
  const StageTimes& s = plan.stages[3];
  ASSERT_EQ(plan.first_units[4] - plan.first_units[3], 4);
  EXPECT_LT(share_off(s.forward + s.input_grad + s.weight_grad, 124.3e-3), 0.02);
  const double hop = 4096 * 7168 * 2 / (50e9 * 0.58), handshakes = 4 * 2 * 1e-3;
  EXPECT_LT(share_off((s.forward_exchange - hop - handshakes) / 4, 3.4e-3 + 6.2e-3), 0.02);
}

// Every size drawn, experts in groups, for laws that hold for all.
ModelConfig drawn_model(uint64_t seed) {
  uint64_t draws = 0;
  const auto from = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(philox(seed, 0, draws++)[0] % static_cast<uint64_t>(high - low + 1));
  };
  ModelConfig c;
  c.vocab_size = from(50, 300), c.width = 8 * from(1, 30), c.num_layers = from(8, 12),
  c.dense_dim = 8 * from(1, 30);
  c.max_positions = 1024;
  c.mla = {.num_heads = 4 * from(1, 3),
           .query_latent = from(0, 1) * from(4, 90),
           .kv_latent = from(4, 90),
           .nope_dim = from(1, 20),
           .rope_dim = 2 * from(1, 8),
           .value_dim = from(1, 20)};
  c.moe = {.num_experts = 8,
           .num_shared = from(0, 2),
           .top_k = from(1, 3),
           .expert_dim = 8 * from(1, 20),
           .first_layer = from(0, 3)};
  return c;
}

ClusterJob drawn_job(uint64_t seed, int64_t gpus) {
  return {.model = drawn_model(seed), .gpus = gpus, .batch = 64, .length = 128};
}

TEST(UnitCost, OperationsOfAllUnitsAreThoseOfTheModel) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const ClusterJob job = drawn_job(seed, 1);
    UnitCost sum;
    for (const UnitCost& u : unit_costs(job, {}, {})) sum += u;
    EXPECT_DOUBLE_EQ(sum.gemm + sum.gemm_bf16 + sum.attention,
                     static_cast<double>(prefill_flops(job.model, job.length).total()))
        << seed;
  }
}

TEST(UnitCost, ParametersOfAllUnitsAreThoseOfTheModel) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    ClusterJob job = drawn_job(seed, 1);
    job.model.mtp_depth = static_cast<int64_t>(seed % 3);
    UnitCost sum;
    for (const UnitCost& u : unit_costs(job, {}, {})) sum += u;
    const ModelSize size = model_size(job.model);
    EXPECT_EQ(sum.dense + sum.tables + sum.experts, static_cast<double>(size.main.total() + size.mtp.total()))
        << seed;
  }
}

TEST(UnitCost, TensorParallelRanksShareAllButTheReplicated) {
  ClusterJob job = drawn_job(4, 4);
  job.model.moe.num_shared = 2, job.model.moe.first_layer = 3;
  UnitCost whole, part;
  for (const UnitCost& u : unit_costs(job, {}, {})) whole += u;
  for (const UnitCost& u : unit_costs(job, {.tp = 4}, {})) part += u;
  const MlaConfig& a = job.model.mla;
  const double replicated = 2.0 * static_cast<double>(job.model.num_layers * job.model.width *
                                                      (a.query_latent + a.kv_latent + a.rope_dim));
  EXPECT_NEAR(4 * part.gemm, whole.gemm + 3 * replicated, 1e-6 * whole.gemm);
  EXPECT_DOUBLE_EQ(4 * part.attention, whole.attention);
}

TEST(UnitCost, SelectiveRecomputingRepeatsNormsUpProjectionsAndSwiglu) {
  ClusterJob job = drawn_job(2, 1);
  job.fp8 = false, job.model.moe.num_experts = 0;
  const ModelConfig& c = job.model;
  const MlaConfig& a = c.mla;
  const UnitCost u = unit_costs(job, {}, {})[1];
  const int64_t up =
      a.query_latent * a.num_heads * a.key_dim() + a.kv_latent * a.num_heads * (a.nope_dim + a.value_dim);
  EXPECT_EQ(u.gemm_again, 2.0 * static_cast<double>(up));
  // BF16 read and written: two norms of the width, those of the latents; two inputs of SwiGLU and its output.
  EXPECT_EQ(u.passes_again,
            static_cast<double>(2 * 4 * c.width + 4 * (a.query_latent + a.kv_latent) + 6 * c.dense_dim));
}

// Copies that random routing under the node limit sends, counted.
ExchangeSpread counted_spread(int64_t groups, int64_t kept, int64_t per_group, int64_t top_k, int64_t ep,
                              int64_t per_node) {
  const int64_t experts = groups * per_group, tokens = 20000;
  double nodes = 0, ranks = 0;
  uint64_t draw = 0;
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(philox(7, 1, draw++)[0] % static_cast<uint64_t>(n));
  };
  for (int64_t t = 0; t < tokens; ++t) {
    std::set<int64_t> allowed, to_ranks, to_nodes;
    while (static_cast<int64_t>(allowed.size()) < kept) allowed.insert(below(groups));
    const std::vector<int64_t> list(allowed.begin(), allowed.end());
    for (int64_t k = 0; k < top_k; ++k) {
      const int64_t expert = list[static_cast<size_t>(below(kept))] * per_group + below(per_group);
      to_ranks.insert(expert / (experts / ep)), to_nodes.insert(expert / (experts / ep) / per_node);
    }
    nodes += static_cast<double>(to_nodes.size()), ranks += static_cast<double>(to_ranks.size());
  }
  return {.nodes = nodes / tokens, .ranks = ranks / tokens};
}

TEST(ExchangeSpread, IsWhatRandomRoutingUnderTheNodeLimitSends) {
  const ClusterJob job = v3_job();
  const ExchangeSpread said = exchange_spread(job, {.ep = 64, .dp = 128}, {});
  const ExchangeSpread counted = counted_spread(8, 4, 32, 8, 64, 8);
  EXPECT_NEAR(said.nodes, counted.nodes, 0.02);
  EXPECT_NEAR(said.ranks, counted.ranks, 0.02);
  EXPECT_DOUBLE_EQ(said.inter, said.nodes * 7 / 8);  // an eighth of the nodes is its own
  const ExchangeSpread inside = exchange_spread(job, {.ep = 8, .dp = 128}, {});
  EXPECT_EQ(inside.inter, 0);
  EXPECT_GT(inside.intra, 0);
  EXPECT_EQ(exchange_spread(job, {.ep = 1, .dp = 128}, {}).intra, 0);
}

TEST(BalancedSplit, LargestStageIsAsSmallAsAnySplitsOf) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    std::vector<double> costs;
    for (uint64_t i = 0; i < 9; ++i) costs.push_back(1 + philox(seed, 0, i)[0] % 7);
    const std::vector<int64_t> got = balanced_split(costs, 4);
    const auto largest = [&](const std::vector<int64_t>& first) {
      double most = 0;
      for (size_t s = 0; s + 1 < first.size(); ++s) {
        double sum = 0;
        EXPECT_LT(first[s], first[s + 1]);
        for (int64_t u = first[s]; u < first[s + 1]; ++u) sum += costs[static_cast<size_t>(u)];
        most = std::max(most, sum);
      }
      return most;
    };
    double best = 1e9;
    for (int64_t a = 1; a < 7; ++a)
      for (int64_t b = a + 1; b < 8; ++b)
        for (int64_t c = b + 1; c < 9; ++c) best = std::min(best, largest({0, a, b, c, 9}));
    EXPECT_EQ(largest(got), best) << seed;
  }
}

TEST(PipelineRun, ALongStepIsThatOfTheSimulatorPlayedWhole) {
  for (const ScheduleKind kind : all_schedules())
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const ScheduleShape shape{.ranks = 4, .microbatches = 200, .chunks = 2};
      const Schedule schedule = make_schedule(kind, shape);
      std::vector<StageTimes> times;
      std::vector<double> kept;
      for (int s = 0; s < schedule.stages; ++s) {
        const auto x = philox(seed, 3, static_cast<uint64_t>(s));
        times.push_back({1.0 + x[0] % 4, 1.0 + x[1] % 4, 1.0 + x[2] % 3, x[3] % 2 * 0.5, x[0] % 3 * 0.5});
        kept.push_back(1.0 + x[1] % 5);
      }
      const PipelineRun run = run_pipeline(kind, shape, times, kept);
      const Simulation whole = simulate(schedule, [&](const Action& a) { return seconds_of(a, times); });
      EXPECT_NEAR(run.seconds, whole.makespan, 1e-9 * whole.makespan) << name(kind) << " " << seed;
      for (size_t r = 0; r < 4; ++r) {
        EXPECT_NEAR(run.idle[r], whole.idle[r], 1e-6) << name(kind) << " " << seed;
        EXPECT_EQ(std::lround(run.peak_held[r]), whole.peak_held[r])
            << name(kind) << " " << seed << " rank " << r;
      }
    }
}

TEST(PipelineRun, AnExchangeHidesInPairsAlone) {
  const std::vector<StageTimes> stages{
      {.forward = 1, .input_grad = 2, .weight_grad = 3, .forward_exchange = 4, .backward_exchange = 0.5}};
  EXPECT_EQ(seconds_of({Pass::kForward, 0, 0}, stages), 5);
  EXPECT_EQ(seconds_of({Pass::kInputGrad, 0, 0}, stages), 2.5);
  EXPECT_EQ(seconds_of({Pass::kWeightGrad, 0, 0}, stages), 3);
  EXPECT_EQ(seconds_of({Pass::kBackward, 0, 0}, stages), 5.5);
  EXPECT_EQ(seconds_of({Pass::kPair, 0, 1, 0, 0}, stages), 6);
}

TEST(ClusterMemory, MasterWeightsAndMomentsOfAllRanksAreThoseOfTheModelOnce) {
  for (const char* text :
       {"pp=2,ep=4,schedule=1f1b", "pp=4,ep=2,schedule=zb-v", "pp=4,ep=2,schedule=dualpipe", "pp=1,ep=8"}) {
    const ClusterJob job = drawn_job(3, 8);
    const ClusterPlan plan = plan_cluster(job, parse_layout(text, 8), {});
    double master = 0, moments = 0;
    for (const ClusterMemory& m : plan.memory) master += m.master, moments += m.moments;
    const auto values = static_cast<double>(model_size(job.model).main.total());
    EXPECT_NEAR(master * static_cast<double>(plan.layout.dp), 4 * values, 1) << text;
    EXPECT_NEAR(moments * static_cast<double>(plan.layout.dp), 4 * values, 1) << text;
  }
}

TEST(ClusterMemory, WithoutZero1EveryRankHasTheStateOfItsWeights) {
  const ClusterJob job = drawn_job(3, 4);
  for (const ClusterMemory& m : plan_cluster(job, parse_layout("pp=2,ep=2,zero1=0", 4), {}).memory) {
    EXPECT_EQ(m.master, m.gradients);  // 4 bytes each
    EXPECT_EQ(m.moments, m.gradients);
  }
}

TEST(ClusterMemory, ActivationsAreThoseOfTheMicroBatchesThatTheScheduleHolds) {
  ClusterJob job = drawn_job(5, 4);
  job.model.moe.num_experts = 0;  // all layers alike
  job.model.num_layers = 12;
  const ClusterPlan plan = plan_cluster(job, parse_layout("pp=4,schedule=1f1b", 4), {});
  for (size_t r = 0; r < 4; ++r) EXPECT_EQ(plan.pipeline.peak_held[r], 4 - static_cast<double>(r));
  const ClusterPlan all = plan_cluster(job, parse_layout("pp=4,schedule=gpipe", 4), {});
  EXPECT_NEAR(all.memory[0].activations / plan.memory[0].activations, 64.0 / 4, 1e-9);
}

TEST(ClusterMemory, MoreRecomputingHoldsLessAndTakesLonger) {
  double held = 1e99, seconds = 0;
  for (const char* recompute : {"none", "selective", "full"}) {
    const ClusterPlan plan = plan_cluster(
        v3_job(), parse_layout(std::string("pp=16,ep=64,schedule=dualpipe,recompute=") + recompute, 2048),
        {});
    EXPECT_LT(plan.fullest().activations, held) << recompute;
    EXPECT_GT(plan.pipeline.seconds, seconds) << recompute;
    held = plan.fullest().activations, seconds = plan.pipeline.seconds;
  }
}

TEST(ClusterTraffic, IsCountedByHandForOneLayerOfExperts) {
  ClusterJob job{.model = drawn_model(1), .gpus = 16, .batch = 32, .length = 64};
  job.model.num_layers = 8,
  job.model.moe = {.num_experts = 16, .top_k = 1, .expert_dim = 8, .first_layer = 7};
  const ClusterPlan plan = plan_cluster(job, parse_layout("pp=1,ep=16,dp=16", 16), {});
  const double tokens = 32.0 * 64 / 16, width = static_cast<double>(job.model.width);
  // One expert of 16 on as many ranks and two nodes: half of the rows leave the node, 7 in 8 the rank.
  EXPECT_NEAR(plan.traffic.dispatch_inter, 2 * tokens * width * (1 + 4.0 / 128) / 2, 1e-6);
  EXPECT_NEAR(plan.traffic.combine_intra, 2 * tokens * width * 2 * 7 / 8, 1e-6);
  EXPECT_EQ(plan.traffic.pipeline, 0);
  EXPECT_EQ(plan.traffic.reduce_scatter, 2 * plan.traffic.all_gather);
}

TEST(ClusterLayout, EachBrokenRuleIsNamed) {
  const ClusterJob job = v3_job();
  const std::pair<const char*, const char*> cases[] = {
      {"pp=16,dp=100", "need the 2048 GPUs. Rule: pp x dp x tp = gpus"},
      {"pp=16,ep=48", "ep 48 does not divide dp 128"},
      {"pp=1,ep=512", "ep 512 shares out 256 experts unevenly"},
      {"pp=64", "1f1b with pp 64 has 64 stages: need no more than the 61 layers"},
      {"pp=32,schedule=interleaved", "has 64 stages"},
      {"pp=16,tp=16", "tp 16 leaves the node"},
      {"pp=16,micro=7", "a batch of 15360 sequences: need a multiple of dp 128 x micro 7"},
      {"pp=16,schedule=dualpipe,micro=8", "dualpipe with 16 ranks, 15 micro-batches"},
  };
  for (const auto& [text, said] : cases) {
    try {
      plan_cluster(job, parse_layout(text, 2048), {});
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(said), std::string::npos) << e.what();
    }
  }
  ClusterJob odd = drawn_job(0, 12);
  odd.model.mla.num_heads = 4;
  EXPECT_EQ(broken_rule(odd, {.dp = 4, .tp = 3}, {})->name, "heads divisible by tp");
  odd.model.moe.num_experts = 0;
  EXPECT_EQ(broken_rule(odd, {.ep = 2, .dp = 12}, {})->name, "experts divisible by ep");
}

TEST(ClusterLayout, TextThatIsNoLayoutIsRefused) {
  for (const auto& [text, said] : {std::pair{"px=1", "did you mean \"pp\"?"},
                                   {"pp", "need KEY=VALUE parts"},
                                   {"pp=0", "pp=0: need an integer"},
                                   {"pp=2,pp=4", "pp is given twice"},
                                   {"recompute=some", "need none, selective or full"},
                                   {"schedule=dualpip", "did you mean \"dualpipe\"?"},
                                   {"pp=99999999999999999999", "need an integer from 1 to 1048576"}}) {
    try {
      parse_layout(text, 8);
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(said), std::string::npos) << e.what();
    }
  }
  const ClusterLayout layout = parse_layout("pp=2,tp=2,schedule=interleaved,chunks=3,zero1=0", 16);
  EXPECT_EQ(text_of(layout),
            "pp=2,ep=1,dp=4,tp=2,schedule=interleaved,chunks=3,micro=1,recompute=selective,zero1=0");
}

TEST(ClusterFacts, ValuesOutOfRangeAreRefused) {
  ClusterFacts facts;
  set_fact(facts, "gemm_fp8", "0.5");
  set_fact(facts, "gpus_per_node", "4");
  EXPECT_EQ(facts.gemm_fp8, 0.5);
  EXPECT_EQ(facts.gpus_per_node, 4);
  for (const auto& [name, value] : {std::pair{"gemm_fp8", "1.5"},
                                    {"gemm_fp8", "nan"},
                                    {"price", "-1"},
                                    {"memory_gib", "0"},
                                    {"gpus_per_node", "2.5"},
                                    {"expert_imbalance", "0.9"},
                                    {"gemm_fp9", "0.5"}})
    EXPECT_THROW(set_fact(facts, name, value), Error) << name << " " << value;
  EXPECT_THROW(cluster_facts("h8000"), Error);
}

TEST(Proposal, FindsTheFastestThatFitsAndCountsTheRest) {
  const ClusterJob job{.model = preset("v2-lite"), .gpus = 8, .batch = 64};
  ClusterFacts facts;
  facts.memory_gib = 60;
  const ClusterProposal found = propose_layouts(job, facts, 5);
  ASSERT_EQ(found.best.size(), 5u);
  int64_t refused = 0;
  for (const auto& [rule, count] : found.refused) refused += count;
  EXPECT_EQ(found.tried, found.fitting + refused);
  EXPECT_GT(found.refused.at("memory of a GPU"), 0);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(found.best[i].fits(facts));
    if (i > 0) {
      EXPECT_GE(found.best[i].step_seconds, found.best[i - 1].step_seconds);
    }
  }
  // Some by hand: none of those that fit is faster.
  for (const char* text :
       {"pp=1,ep=8", "pp=2,ep=4", "pp=2,ep=2,schedule=dualpipe", "pp=4,ep=2,schedule=zb-h1,recompute=full",
        "pp=8,ep=1,schedule=zb-v,recompute=none", "pp=4,ep=2,schedule=dualpipe-v,recompute=none"}) {
    const ClusterPlan plan = plan_cluster(job, parse_layout(text, 8), facts);
    if (plan.fits(facts)) {
      EXPECT_GE(plan.step_seconds, found.best[0].step_seconds) << text;
    }
  }
}

TEST(Proposal, V3sOwnLayoutIsAmongTheBest) {
  const ClusterProposal found = propose_layouts(v3_job(), {}, 10);
  bool there = false;
  for (const ClusterPlan& p : found.best)
    there |= p.layout.pp == 16 && p.layout.ep == 64 && p.layout.dp == 128 &&
             p.layout.schedule == ScheduleKind::kDualPipe;
  EXPECT_TRUE(there);
}

}  // namespace
}  // namespace hadal
