// Ranks that share out heads and the columns of MLPs train the model of one process, but for the order of
// sums.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/layout_runs.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

ModelConfig model_of(int64_t mtp_depth) {
  ModelConfig c = deep_model(mtp_depth);
  c.mla.num_heads = 4;
  return c;
}

TrainConfig config_of(const Variant& variant, int64_t steps = 10) {
  TrainConfig c = layout_run(variant, steps);
  c.batch.sequences = 5, c.batch.workers = 4;
  // Adam divides a gradient by its own size: what is 0 but for rounding must not become a step of full
  // length, and long steps make much of little (norms to 6e-6 with a rate of 1e-2). So do tokens that are
  // dropped or not, and moments that are rounded.
  c.optimizer.eps = 1e-3, c.optimizer.lr = 1e-3;
  c.loss.capacity_factor = 0, c.optimizer.bf16_moments = false;
  return c;
}

// Relative to the larger of the two, or to the largest of a weight.
constexpr double kSumOrder = 1e-6;

double difference(const std::vector<double>& got, const std::vector<double>& want) {
  double largest = got.size() == want.size() ? 0 : INFINITY;
  for (size_t i = 0; i < want.size() && i < got.size(); ++i)
    largest = std::max(largest, std::abs(got[i] - want[i]) / std::max({std::abs(want[i]), 1e-9}));
  return largest;
}

double weight_difference(const Outcome& got, const Outcome& want) {
  double largest = covers(got, want) ? 0 : INFINITY;
  for (const NamedWeights& rank : got.weights)
    for (const auto& [name, held] : rank) {
      const Tensor& whole = want.weights[0].at(name).values;
      const double size = whole.abs().max().item<double>() + 1e-9;
      largest = std::max(largest, (held.values - held.of(whole)).abs().max().item<double>() / size);
    }
  return largest;
}

void expect_close_run(const Outcome& got, const Outcome& want, const std::string& what) {
  EXPECT_LE(difference(got.numbers, want.numbers), kSumOrder) << what;
  EXPECT_LE(difference(got.measured, want.measured), kSumOrder) << what;
  EXPECT_LE(weight_difference(got, want), kSumOrder) << what;
}

TEST(TensorLayouts, EveryOneTrainsTheModelOfOneProcess) {
  for (const Variant& variant : spread_variants()) {
    const TrainConfig config = config_of(variant);
    const TrainRows rows = measured_rows(config, variant.mtp_depth);
    const ModelConfig model = model_of(variant.mtp_depth);
    const Outcome one = train(config, model, kAlone, rows);
    ASSERT_EQ(one.numbers.size(), 60u);
    for (const Layout& layout :
         {Layout{.ranks = 2, .tensor = 2}, Layout{.ranks = 4, .tensor = 4}, Layout{.ranks = 4, .tensor = 2},
          Layout{.ranks = 4, .experts = 2, .tensor = 2}, Layout{.ranks = 4, .pipeline = 2, .tensor = 2}})
      expect_close_run(train(config, model, layout, rows), one,
                       std::string(variant.name) + ", " + layout.text());
  }
}

// What all have is the same on all, bit for bit, or it would drift apart.
TEST(TensorLayouts, WhatIsNotCutStaysTheSameOnAllRanks) {
  const Variant variant = spread_variants()[0];
  const TrainConfig config = config_of(variant);
  const ModelConfig model = model_of(variant.mtp_depth);
  const Outcome got =
      train(config, model, {.ranks = 4, .tensor = 2}, measured_rows(config, variant.mtp_depth));
  for (const WeightSpec& spec : weight_specs(model))
    for (size_t rank = 1; rank < 4 && !spec.cut(); ++rank)
      EXPECT_TRUE(got.weights[rank].at(spec.name).values.equal(got.weights[0].at(spec.name).values))
          << spec.name << " of rank " << rank;
}

TEST(TensorLayouts, SharedOutMomentsChangeNoBit) {
  const Variant variant = spread_variants()[0];
  TrainConfig config = config_of(variant);
  config.optimizer.bf16_moments = true;
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  const ModelConfig model = model_of(variant.mtp_depth);
  for (Layout layout : {Layout{.ranks = 4, .tensor = 2}, Layout{.ranks = 4, .experts = 2, .tensor = 2}}) {
    const Outcome want = train(config, model, layout, rows);
    layout.shard = true;
    const Outcome got = train(config, model, layout, rows);
    EXPECT_EQ(got.numbers, want.numbers) << layout.text();
    for (size_t rank = 0; rank < 4; ++rank)
      for (const auto& [name, held] : want.weights[rank])
        EXPECT_TRUE(got.weights[rank].at(name).values.equal(held.values)) << name << ", " << layout.text();
  }
}

TEST(TensorLayouts, AnyResumesACheckpointOfAnyOther) {
  const Variant variant = spread_variants()[2];
  const TrainConfig config = config_of(variant);
  const auto same = [](const Outcome& got, const Outcome& want, const std::vector<Tensor>& got_stored,
                       const std::vector<Tensor>& want_stored, const std::string& what) {
    expect_close_run(got, want, what);
    ASSERT_EQ(got_stored.size(), want_stored.size());
    for (size_t t = 0; t < want_stored.size(); ++t)
      EXPECT_LE((got_stored[t] - want_stored[t]).abs().max().item<double>(),
                kSumOrder * want_stored[t].abs().max().item<double>() + 1e-9)
          << what;
  };
  expect_any_goes_on_in_another(config, model_of(variant.mtp_depth), measured_rows(config, variant.mtp_depth),
                                {kAlone,
                                 {.ranks = 2, .tensor = 2},
                                 {.ranks = 4, .experts = 2, .tensor = 2},
                                 {.ranks = 4, .pipeline = 2, .tensor = 2},
                                 {.ranks = 4, .tensor = 2, .shard = true},
                                 {.ranks = 4, .tensor = 4}},
                                same);
}

// Saving and loading alone change nothing: stopped and gone on in the same layout is the unbroken run.
TEST(TensorLayouts, StoppedAndGoneOnIsTheUnbrokenRunBitForBit) {
  const Variant variant = spread_variants()[2];
  const TrainConfig config = config_of(variant);
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  ModelConfig model = model_of(variant.mtp_depth);
  model.dense_dim = 6144;  // ZeRO-1 then cuts a matrix that is cut already
  for (const Layout& layout : {Layout{.ranks = 2, .tensor = 2}, Layout{.ranks = 4, .experts = 2, .tensor = 2},
                               Layout{.ranks = 4, .tensor = 2, .shard = true}}) {
    const TemporaryFolder unbroken, broken;
    const Outcome whole = train(config, model, layout, rows, unbroken.path());
    train(config, model, layout, rows, broken.path(), 4);
    train(config, model, layout, rows, broken.path());
    EXPECT_TRUE(same_bits(stored(broken.path(), model), stored(unbroken.path(), model))) << layout.text();
  }
}

TEST(TensorLayouts, ThoseThatCannotBeAreRefusedWithTheirNumbers) {
  const auto expect = [](int64_t ranks, const char* want, const char* precision) {
    const auto set = [&](TrainConfig& c, ModelConfig&, TrainRows&) {
      c.parallel.tensor = ranks, c.compute.precision = precision;
    };
    const std::string got =
        refusal(ranks, set, layout_run(spread_variants()[1]), layout_model(0), bordered_rows(13));
    EXPECT_NE(got.find(want), std::string::npos) << got;
  };
  expect(4, "the heads cannot be shared out evenly: got 4 ranks, need a divisor of 2", "f32");
  expect(2, "tensor 2 with compute.precision bf16: parts of matrices are added up in f32.", "bf16");
}

}  // namespace
}  // namespace hadal
