// Ranks that share out heads and the columns of MLPs train the model of one process, but for the order of
// sums.
#include <gtest/gtest.h>

#include <cmath>

#include "hadal/error.h"
#include "tests/support/layout_runs.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

struct Layout {
  int64_t ranks, tensor, experts = 1, pipeline = 1;
  bool shard = false;

  std::string text() const {
    return std::to_string(ranks) + " ranks, tensor " + std::to_string(tensor) + ", experts over " +
           std::to_string(experts) + ", pipeline " + std::to_string(pipeline) + (shard ? ", ZeRO-1" : "");
  }
};

std::vector<Variant> tensor_variants() {
  return {
      {"balance loss, bias, two MTP modules, clipped",
       [](TrainConfig& c) { c.loss.balance_alpha = 0.1, c.loss.bias_step = 0.1, c.optimizer.clip = 0.05; },
       2},
      {"V2's losses, selective recomputing, no MTP",
       [](TrainConfig& c) {
         c.loss.expert_alpha = 0.1, c.loss.device_alpha = 0.2, c.loss.communication_alpha = 0.3;
         c.compute.recompute = "selective";
       },
       0},
      {"recomputed, an average", [](TrainConfig& c) { c.compute.recompute = "full", c.optimizer.ema = 0.9; }},
  };
}

ModelConfig model_of(int64_t mtp_depth) {
  ModelConfig c = deep_model(mtp_depth);
  c.mla.num_heads = 4;
  return c;
}

TrainConfig config_of(const Variant& variant, int64_t steps = 10) {
  TrainConfig c = layout_run(variant, steps);
  c.batch.sequences = 5, c.batch.workers = 4;
  // Adam divides a gradient by its own size: what is 0 but for rounding must not become a step of full
  // length, and long steps make much of little (norms to 6e-6 with a rate of 1e-2).
  c.optimizer.eps = 1e-3, c.optimizer.lr = 1e-3;
  return c;
}

Outcome train(TrainConfig config, const ModelConfig& model, const Layout& layout, const TrainRows& rows,
              const std::filesystem::path& folder = {}, int64_t stop_after = -1) {
  config.parallel.experts = layout.experts, config.parallel.pipeline = layout.pipeline;
  config.parallel.tensor = layout.tensor;
  return train(config, model, layout.ranks, layout.shard, rows, folder, stop_after);
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
  for (const Variant& variant : tensor_variants()) {
    const TrainConfig config = config_of(variant);
    const TrainRows rows = measured_rows(config, variant.mtp_depth);
    const ModelConfig model = model_of(variant.mtp_depth);
    const Outcome one = train(config, model, {1, 1}, rows);
    ASSERT_EQ(one.numbers.size(), 60u);
    for (const Layout& layout :
         {Layout{2, 2}, Layout{4, 4}, Layout{4, 2}, Layout{4, 2, 2}, Layout{4, 2, 1, 2}})
      expect_close_run(train(config, model, layout, rows), one,
                       std::string(variant.name) + ", " + layout.text());
  }
}

// What all have is the same on all, bit for bit, or it would drift apart.
TEST(TensorLayouts, WhatIsNotCutStaysTheSameOnAllRanks) {
  const Variant variant = tensor_variants()[0];
  const TrainConfig config = config_of(variant);
  const ModelConfig model = model_of(variant.mtp_depth);
  const Outcome got = train(config, model, {4, 2}, measured_rows(config, variant.mtp_depth));
  for (const WeightSpec& spec : weight_specs(model))
    for (size_t rank = 1; rank < 4 && !spec.cut(); ++rank)
      EXPECT_TRUE(got.weights[rank].at(spec.name).values.equal(got.weights[0].at(spec.name).values))
          << spec.name << " of rank " << rank;
}

TEST(TensorLayouts, SharedOutMomentsChangeNoBit) {
  const Variant variant = tensor_variants()[0];
  TrainConfig config = config_of(variant);
  config.optimizer.bf16_moments = true;
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  const ModelConfig model = model_of(variant.mtp_depth);
  for (Layout layout : {Layout{4, 2}, Layout{4, 2, 2}}) {
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
  const Variant variant = tensor_variants()[2];
  const TrainConfig config = config_of(variant);
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  const ModelConfig model = model_of(variant.mtp_depth);
  const TemporaryFolder unbroken;
  const Outcome whole = train(config, model, {1, 1}, rows, unbroken.path());
  const std::vector<Tensor> want = stored(unbroken.path(), model);
  const std::vector<Layout> layouts = {{1, 1}, {2, 2}, {4, 2, 2}, {4, 2, 1, 2}, {4, 2, 1, 1, true}, {4, 4}};
  for (size_t i = 0; i < layouts.size(); ++i)
    for (const size_t next : {i, (i + 1) % layouts.size()}) {
      const std::string what = layouts[i].text() + "; then " + layouts[next].text();
      const TemporaryFolder folder;
      const Outcome begun = train(config, model, layouts[i], rows, folder.path(), 4);
      Outcome ended = train(config, model, layouts[next], rows, folder.path());
      ended.numbers.insert(ended.numbers.begin(), begun.numbers.begin(), begun.numbers.end());
      ended.measured.insert(ended.measured.begin(), begun.measured.begin(), begun.measured.end());
      expect_close_run(ended, whole, what);
      const std::vector<Tensor> got = stored(folder.path(), model);
      ASSERT_EQ(got.size(), want.size());
      for (size_t t = 0; t < want.size(); ++t)
        EXPECT_LE((got[t] - want[t]).abs().max().item<double>(),
                  kSumOrder * want[t].abs().max().item<double>() + 1e-9)
            << what;
    }
}

// Saving and loading alone change nothing: stopped and gone on in the same layout is the unbroken run.
TEST(TensorLayouts, StoppedAndGoneOnIsTheUnbrokenRunBitForBit) {
  const Variant variant = tensor_variants()[2];
  const TrainConfig config = config_of(variant);
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  ModelConfig model = model_of(variant.mtp_depth);
  model.dense_dim = 6144;  // ZeRO-1 then cuts a matrix that is cut already
  for (const Layout& layout : {Layout{2, 2}, Layout{4, 2, 2}, Layout{4, 2, 1, 1, true}}) {
    const TemporaryFolder unbroken, broken;
    const Outcome whole = train(config, model, layout, rows, unbroken.path());
    train(config, model, layout, rows, broken.path(), 4);
    train(config, model, layout, rows, broken.path());
    EXPECT_TRUE(same_bits(stored(broken.path(), model), stored(unbroken.path(), model))) << layout.text();
  }
}

std::string refusal(const std::function<void(TrainConfig&)>& set, int64_t ranks = 2) {
  try {
    run_ranks(ranks, [&](Comm& comm) {
      TrainConfig config = layout_run(tensor_variants()[1]);
      config.parallel.tensor = ranks;
      set(config);
      Trainer(config, layout_model(0), bordered_rows(13), {.comm = &comm});
    });
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(TensorLayouts, ThoseThatCannotBeAreRefusedWithTheirNumbers) {
  const auto expect = [](const std::string& got, const char* want) {
    EXPECT_NE(got.find(want), std::string::npos) << got;
  };
  expect(refusal([](TrainConfig&) {}, 4),
         "the heads cannot be shared out evenly: got 4 ranks, need a divisor of 2");
  expect(refusal([](TrainConfig& c) { c.compute.precision = "bf16"; }),
         "tensor 2 with compute.precision bf16: parts of matrices are added up in f32.");
}

}  // namespace
}  // namespace hadal
