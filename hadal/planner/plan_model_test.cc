#include <gtest/gtest.h>

#include "hadal/base/random.h"
#include "hadal/planner.h"

namespace hadal {
namespace {

// The published configurations (architecture spec, section 1), written out here independently of the presets.
ModelConfig v3() {
  ModelConfig c;
  c.vocab_size = 129280, c.width = 7168, c.num_layers = 61, c.dense_dim = 18432, c.mtp_depth = 1;
  c.mla = {.num_heads = 128,
           .query_latent = 1536,
           .kv_latent = 512,
           .nope_dim = 128,
           .rope_dim = 64,
           .value_dim = 128};
  c.moe = {.num_experts = 256,
           .num_shared = 1,
           .top_k = 8,
           .expert_dim = 2048,
           .num_groups = 8,
           .num_groups_kept = 4,
           .first_layer = 3,
           .scoring = Scoring::kSigmoid,
           .choice = Choice::kGroupTopTwo};
  return c;
}

ModelConfig v32() {
  ModelConfig c = v3();
  c.generation = Generation::kV32;
  c.mla.indexer = IndexerConfig{.num_heads = 64, .head_dim = 128, .top_k = 2048};
  return c;
}

ModelConfig v2() {
  ModelConfig c;
  c.generation = Generation::kV2;
  c.vocab_size = 102400, c.width = 5120, c.num_layers = 60, c.dense_dim = 12288;
  c.mla = v3().mla;
  c.moe = {.num_experts = 160,
           .num_shared = 2,
           .top_k = 6,
           .expert_dim = 1536,
           .num_groups = 8,
           .num_groups_kept = 3,
           .first_layer = 1,
           .choice = Choice::kGroupMax};
  return c;
}

ModelConfig v2_lite() {
  ModelConfig c = v2();
  c.width = 2048, c.num_layers = 27, c.dense_dim = 10944;
  c.mla.num_heads = 16, c.mla.query_latent = 0;
  c.moe = {.num_experts = 64, .num_shared = 2, .top_k = 6, .expert_dim = 1408, .first_layer = 1};
  return c;
}

// A model with every size drawn, for laws that hold for all.
ModelConfig random_model(uint64_t seed) {
  uint64_t draws = 0;
  const auto from = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(philox(seed, 0, draws++)[0] % static_cast<uint64_t>(high - low + 1));
  };
  ModelConfig c;
  c.vocab_size = from(8, 300), c.width = from(4, 300), c.num_layers = from(1, 6), c.dense_dim = from(4, 300);
  c.mtp_depth = from(0, 2), c.tied_head = from(0, 3) == 0;
  c.mla = {.num_heads = from(1, 5),
           .query_latent = from(0, 1) * from(4, 200),
           .kv_latent = from(4, 200),
           .nope_dim = from(1, 20),
           .rope_dim = 2 * from(1, 8),
           .value_dim = from(1, 20)};
  c.moe = {.num_experts = from(0, 3) * 4,
           .num_shared = from(0, 2),
           .top_k = from(1, 4),
           .expert_dim = from(4, 200),
           .first_layer = from(0, 3),
           .layer_step = from(1, 2)};
  if (from(0, 1)) c.moe.choice = Choice::kGroupTopTwo;
  return c;
}

// Closed formulas of the spec (section 1), in its own letters.
struct Formula {
  explicit Formula(const ModelConfig& c) {
    const int64_t H = c.width, A = c.mla.num_heads, nope = c.mla.nope_dim, R = c.mla.rope_dim,
                  V = c.mla.value_dim;
    const int64_t r = c.mla.kv_latent, q_r = c.mla.query_latent, D = nope + R, E = c.moe.num_experts;
    attention = q_r ? H * q_r + q_r + q_r * A * D : H * A * D;
    attention += H * (r + R) + r + r * A * (nope + V) + A * V * H;
    if (c.mla.indexer) {
      const int64_t X = c.mla.indexer->num_heads, Y = c.mla.indexer->head_dim;
      attention += X * Y * c.mla.query_latent + Y * H + 2 * Y + X * H;
    }
    expert = 3 * H * c.moe.expert_dim;
    moe_rest = expert * c.moe.num_shared + E * H;
    for (int64_t i = 0; i < c.num_layers; ++i) {
      const bool moe = E > 0 && i >= c.moe.first_layer && i % c.moe.layer_step == 0;
      total += attention + 2 * H + (moe ? E * expert + moe_rest : 3 * H * c.dense_dim);
      active += attention + 2 * H + (moe ? c.moe.top_k * expert + moe_rest : 3 * H * c.dense_dim);
    }
    const int64_t ends = (c.tied_head ? 1 : 2) * c.vocab_size * H + H;
    total += ends;
    active += ends;
    // two input norms, a final norm, the projection of 2 H to H, one layer
    const int64_t ffn = E > 0 ? E * expert + moe_rest : 3 * H * c.dense_dim;
    mtp = c.mtp_depth * (attention + 2 * H + ffn + 3 * H + 2 * H * H);
  }
  int64_t attention = 0, expert = 0, moe_rest = 0, total = 0, active = 0, mtp = 0;
};

TEST(PlanModel, CountsEqualTheClosedFormulasOfAnyModel) {
  std::vector<ModelConfig> models = {v3(), v32(), v2(), v2_lite()};
  for (uint64_t seed = 0; seed < 300; ++seed) models.push_back(random_model(seed));
  for (size_t i = 0; i < models.size(); ++i) {
    const ModelSize size = model_size(models[i]);
    const Formula want(models[i]);
    EXPECT_EQ(size.main.total(), want.total) << i;
    EXPECT_EQ(size.active.total(), want.active) << i;
    EXPECT_EQ(size.mtp.total(), want.mtp) << i;
  }
}

TEST(PlanModel, PublishedModelsHaveTheirPublishedSizes) {
  const ModelSize big = model_size(v3());
  EXPECT_EQ(big.main.total(), 671'026'404'352);
  EXPECT_EQ(model_size(v2()).main.total(), 235'741'434'880);
  EXPECT_EQ(model_size(v2_lite()).main.total(), 15'706'484'224);
  EXPECT_NEAR(static_cast<double>(big.mtp.total()), 11.610e9, 0.5e6);
  EXPECT_NEAR(static_cast<double>(big.mtp.total() + big.mtp_copies), 13.463e9, 1e6);
  EXPECT_NEAR(static_cast<double>(big.active.total()), 37.55e9, 5e6);
  EXPECT_NEAR(static_cast<double>(model_size(v2()).active.total()), 21.38e9, 1e7);
  EXPECT_NEAR(static_cast<double>(model_size(v2_lite()).active.total()), 2.66e9, 1e7);
}

TEST(PlanModel, CacheOfATokenIsTheLatentAndTheRopeKey) {
  EXPECT_EQ(model_size(v3()).cache_bytes, 70'272);
  EXPECT_EQ(model_size(v2()).cache_bytes, 69'120);
  EXPECT_EQ(model_size(v2_lite()).cache_bytes, 31'104);
  EXPECT_EQ(model_size(v3()).expanded_cache_bytes, 4'997'120);
  EXPECT_EQ(model_size(v2()).expanded_cache_bytes, 4'915'200);
  EXPECT_EQ(model_size(v2_lite()).expanded_cache_bytes, 276'480);
  EXPECT_EQ(model_size(v32()).cache_bytes, 70'272 + 61 * 256);
  EXPECT_EQ(model_size(v32()).expanded_cache_bytes, 4'997'120);
}

TEST(PlanModel, Fp8CheckpointOfV3HasThePublishedTensorsAndBytes) {
  const ModelSize size = model_size(v3());
  EXPECT_EQ(size.fp8_tensors, 91'991);
  EXPECT_NEAR(static_cast<double>(size.fp8_bytes) / (int64_t{1} << 30), 641.3, 0.05);  // GiB
  EXPECT_EQ(size.bf16_bytes,
            2 * (size.main.total() + size.mtp.total() + size.mtp_copies) + 4 * size.balance_bias);
}

TEST(PlanModel, PartialBlocksOfFp8HaveAScaleToo) {
  ModelConfig c = random_model(1);
  c.num_layers = 1, c.mtp_depth = 0, c.moe = {}, c.width = 129, c.dense_dim = 128, c.tied_head = true;
  c.mla = {.num_heads = 1, .kv_latent = 8, .nope_dim = 4, .rope_dim = 4, .value_dim = 4};
  const ModelSize size = model_size(c);
  const int64_t matrices = size.main.attention + size.main.dense_mlp;
  // query, kv_down [*, 129], out [129, *], gate, up [128, 129], down [129, 128]: 2 blocks each; kv_up: 1
  EXPECT_EQ(size.fp8_bytes, matrices + 4 * (6 * 2 + 1) + 2 * (size.main.embedding + size.main.norms));
}

TEST(PlanModel, FlopsAreTwiceTheMatricesPlusAttentionOverTheKeys) {
  // One dense layer, small enough to add by hand.
  ModelConfig c;
  c.vocab_size = 10, c.width = 3, c.num_layers = 1, c.dense_dim = 5;
  c.mla = {.num_heads = 2, .kv_latent = 4, .nope_dim = 1, .rope_dim = 2, .value_dim = 3};
  const int64_t layers = 2 * (2 * 3 * 3 + 6 * 3 + 2 * (1 + 3) * 4 + 3 * 2 * 3 + 3 * 3 * 5);
  EXPECT_EQ(decode_flops(c, 7).layers, layers);
  EXPECT_EQ(prefill_flops(c, 7).layers, layers);
  EXPECT_EQ(decode_flops(c, 7).head, 2 * 10 * 3);
  EXPECT_EQ(decode_flops(c, 7).attention, 2 * 2 * 7 * (6 + 4));
  int64_t prompt = 0;  // token t sees t keys
  for (int64_t t = 1; t <= 7; ++t) prompt += 2 * 2 * t * ((1 + 2) + 3);
  EXPECT_EQ(7 * prefill_flops(c, 7).attention, prompt);
  c.tied_head = true;
  EXPECT_EQ(decode_flops(c, 7).head, 2 * 10 * 3);
}

TEST(PlanModel, SparseAttentionCostsTopKKeysAndTheScoresOfAll) {
  ModelConfig c;
  c.vocab_size = 10, c.width = 3, c.num_layers = 2, c.dense_dim = 5;
  c.mla = {.num_heads = 2, .query_latent = 4, .kv_latent = 4, .nope_dim = 1, .rope_dim = 2, .value_dim = 3};
  const ModelConfig dense = c;
  c.mla.indexer = IndexerConfig{.num_heads = 3, .head_dim = 5, .top_k = 4};
  EXPECT_EQ(model_size(c).main.indexer, 2 * (15 * 4 + 5 * 3 + 3 * 3));
  EXPECT_EQ(decode_flops(c, 7).attention, 2 * 2 * (2 * 4 * (6 + 4) + 15 * 7));
  int64_t prompt = 0;  // token t sees t keys
  for (int64_t t = 1; t <= 8; ++t)
    prompt += 2 * 2 * (2 * std::min<int64_t>(t, 4) * ((1 + 2) + 3) + (t > 4 ? 15 * t : 0));
  EXPECT_NEAR(static_cast<double>(prefill_flops(c, 8).attention), static_cast<double>(prompt) / 8, 2 * 27);
  for (const int64_t context : {1, 4}) {
    EXPECT_EQ(decode_flops(c, context).attention, decode_flops(dense, context).attention);
    EXPECT_EQ(prefill_flops(c, context).attention, prefill_flops(dense, context).attention);
  }
}

TEST(PlanModel, AbsorbedDecodeOfV3At4096CostsAboutAsMuchInAttentionAsInWeights) {
  // Architecture spec, 4.4: 2 * 128 * 1088 * 4096 * 61, about 70 GFLOP.
  EXPECT_EQ(decode_flops(v3(), 4096).attention, int64_t{2} * 128 * 1088 * 4096 * 61);
}

}  // namespace
}  // namespace hadal
