#include "hadal/model/transformer.h"

#include <gtest/gtest.h>

#include <set>

#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "tests/support/error_of.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

// Two dense and two MoE layers, two MTP modules.
ModelConfig all_features() {
  ModelConfig c = small_model();
  c.vocab_size = 50, c.num_layers = 4, c.max_positions = 32, c.mtp_depth = 2, c.init_std = 0.1;
  c.moe.num_groups = 4, c.moe.num_groups_kept = 2, c.moe.first_layer = 2;
  return c;
}

ModelConfig v2_features() {
  ModelConfig c = all_features();
  c.generation = Generation::kV2, c.mtp_depth = 0, c.mla.query_latent = 0;
  c.moe.scoring = Scoring::kSoftmax, c.moe.choice = Choice::kGreedy, c.moe.normalize = false;
  return c;
}

TEST(Weights, EverySpecHasItsSlotAndNoSlotIsForgotten) {
  std::set<std::string> slots, specs;
  ModelWeights empty_weights;
  empty_weights.layers.resize(6);
  for_each_slot(empty_weights, [&](const std::string& name, Tensor&) {
    slots.insert(name.substr(name.rfind("layers.", 0) == 0 ? 9 : 0));
  });
  for (const ModelConfig& c : {all_features(), v2_features(), reward_config(all_features())})
    for (const WeightSpec& spec : weight_specs(c))
      specs.insert(spec.name.substr(spec.name.rfind("layers.", 0) == 0 ? 9 : 0));
  EXPECT_EQ(slots, specs);
}

TEST(Weights, RandomStartDependsOnSeedAndNameOnly) {
  ModelConfig fewer = all_features();
  fewer.num_layers = 3;
  const ModelWeights a = random_weights(all_features(), 1), b = random_weights(fewer, 1),
                     c = random_weights(fewer, 2);
  EXPECT_TRUE(a.layers[2].moe.experts.up_EMD.equal(b.layers[2].moe.experts.up_EMD));
  EXPECT_FALSE(b.layers[2].moe.experts.up_EMD.equal(c.layers[2].moe.experts.up_EMD));
  EXPECT_NEAR(a.embedding_WD.std().item<double>(), 0.1, 0.01);
  EXPECT_TRUE(a.final_norm.equal(full({32}, 1.0)));
}

TEST(Weights, APartStartsWithTheNumbersOfTheWhole) {
  const WeightShare share{.expert_rank = 1, .expert_ranks = 2, .tensor_rank = 1, .tensor_ranks = 2};
  ModelWeights whole = random_weights(all_features(), 1), part = random_weights(all_features(), 1, share);
  std::vector<Tensor> parts;
  for_each_weight(all_features(), part, [&](const WeightSpec&, Tensor& tensor) { parts.push_back(tensor); });
  size_t next = 0;
  for_each_weight(all_features(), whole, [&](const WeightSpec& spec, Tensor& tensor) {
    const WeightPart p = part_of(spec, share);
    EXPECT_TRUE(parts[next++].equal(tensor.narrow(p.dim, p.begin, p.size))) << spec.name;
  });
}

TEST(Transformer, LaterTokensDoNotChangeEarlierOutputs) {
  NoGrad no_grad;
  const Transformer model(all_features(), random_weights(all_features(), 1));
  const Tensor ids = arange(0, 10).unsqueeze(0);
  Tensor other = ids.clone();
  other[0][9] = 40;
  const Tensor a = model.forward(ids), b = model.forward(other);
  // Not bit-equal: an expert may get another number of rows, and GEMMs of other shapes round differently.
  constexpr double kRounding = 1e-5;
  const auto earlier = [](const Tensor& p, const Tensor& q) {
    return (p - q).narrow(1, 0, 9).abs().max().item<double>();
  };
  EXPECT_LE(earlier(a, b), kRounding);
  EXPECT_GT((a - b).abs().max().item<double>(), 0.01);
  const Tensor am = model.mtp(0, a, ids), bm = model.mtp(0, a, other);
  EXPECT_LE(earlier(am, bm), kRounding);
}

TEST(Transformer, RowsOfABatchDoNotSeeEachOther) {
  NoGrad no_grad;
  const Transformer model(all_features(), random_weights(all_features(), 1));
  const Tensor ids = arange(0, 20).view({2, 10});
  const Tensor alone = model.forward(ids.narrow(0, 1, 1));
  EXPECT_LE((model.forward(ids).narrow(0, 1, 1) - alone).abs().max().item<double>(),
            1e-5);  // other GEMM shapes
}

TEST(Transformer, EveryWeightGetsAGradient) {
  Transformer model(all_features(), random_weights(all_features(), 1));
  for_each_weight(model.config(), model.weights(), [](const WeightSpec& spec, Tensor& w) {
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
  });
  const Tensor ids = arange(0, 48).view({4, 12});
  const Tensor hidden = model.forward(ids), first = model.mtp(0, hidden, ids),
               second = model.mtp(1, first, ids);
  (model.logits(hidden) + model.logits(first) + model.logits(second)).pow(2).sum().backward();
  for_each_weight(model.config(), model.weights(), [](const WeightSpec& spec, Tensor& w) {
    if (spec.role == WeightRole::kBalanceBias) return;
    ASSERT_TRUE(w.grad().defined()) << spec.name;
    EXPECT_GT(w.grad().abs().sum().item<double>(), 0.0) << spec.name;
  });
}

TEST(Transformer, TiedHeadIsTheEmbeddingItself) {
  ModelConfig c = all_features();
  c.tied_head = true;
  Transformer model(c, random_weights(c, 1));
  EXPECT_TRUE(model.weights().head_WD.is_same(model.weights().embedding_WD));
}

TEST(Transformer, IdsOutsideTheVocabularyAndTooManyTokensAreNamed) {
  const Transformer model(all_features(), random_weights(all_features(), 1));
  const auto problem = [&](const Tensor& ids) { return error_of([&] { model.forward(ids); }); };
  EXPECT_NE(problem(full({1, 2}, 50, at::kLong)).find("token id 50 is outside the vocabulary: need 0 to 49"),
            std::string::npos);
  EXPECT_NE(problem(full({1, 2}, -1, at::kLong)).find("token id -1"), std::string::npos);
  EXPECT_NE(problem(zeros({1, 33}, at::kLong)).find("33 tokens, the model's context is 32"),
            std::string::npos);
}

TEST(LatentCache, GrowsKeepingItsRowsAndRefusesWhatDoesNotFit) {
  const ModelConfig c = all_features();
  LatentCache cache(c, 1, 4, at::kFloat);
  EXPECT_EQ(cache.size_bytes(), 4 * 4 * (16 + 8) * 4);  // layers * tokens * (C + R) * bytes
  cache.append(0, full({1, 3, 16}, 1.0), full({1, 3, 8}, 2.0));
  cache.advance(3);
  EXPECT_THROW(cache.append(0, zeros({1, 2, 16}), zeros({1, 2, 8})), Error);
  cache.reserve(8);
  const auto rows = cache.append(0, zeros({1, 2, 16}), zeros({1, 2, 8}));
  EXPECT_EQ(rows.latent_BLC.size(1), 5);
  EXPECT_EQ(rows.latent_BLC.sum().item<double>(), 48.0);
  EXPECT_EQ(rows.rope_key_BLR.sum().item<double>(), 48.0);
  cache.truncate(1);
  EXPECT_EQ(cache.rows(0).latent_BLC.size(1), 1);
}

}  // namespace
}  // namespace hadal
