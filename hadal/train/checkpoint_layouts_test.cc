// What ranks in one layout save, ranks in any other load, bit for bit: weights, their average, moments.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/layout_runs.h"

namespace hadal {
namespace {

// What a rank has of a tensor of the whole model, and at which places of it; both flat.
struct HeldPlaces {
  std::string name;
  Tensor values, places;
};

std::vector<HeldPlaces> held_by(Trainer& trainer) {
  Transformer& model = trainer.model();
  const WeightShare& share = model.share();
  std::map<std::string, Tensor> cut, all;  // places of each weight: those of its part here, and of the whole
  for (const WeightSpec& spec : weight_specs(model.config())) {
    const Tensor places = arange(0, spec.num_values()).view(spec.shape);
    const WeightPart part = part_of(spec, share);
    cut[spec.name] = places.narrow(part.dim, part.begin, part.size).reshape({-1});
    // Moments count from the whole weight's first value, but of a part of a matrix from the part's.
    all[spec.name] = spec.cut() && share.tensor_ranks > 1 ? cut[spec.name] : places.view({-1});
  }
  std::vector<HeldPlaces> held;
  const auto add = [&](const std::string& name, const Tensor& values, const Tensor& places) {
    held.push_back({name, values.detach().to(at::kFloat).reshape({-1}).clone(), places});
  };
  for_each_weight(model.config(), model.weights(), [&](const WeightSpec& spec, Tensor& w) {
    add("weight " + spec.name, w, cut.at(spec.name));
  });
  for_each_weight(model.config(), trainer.average()->weights(), [&](const WeightSpec& spec, Tensor& w) {
    add("average " + spec.name, w, cut.at(spec.name));
  });
  for (ModelPart& part : trainer.parts())
    for (const AdamW::Moments& each : part.optimizer.moments()) {
      const Tensor places = all.at(each.name).narrow(0, each.begin, each.m.numel());
      add("m " + each.name, each.m, places), add("v " + each.name, each.v, places);
    }
  return held;
}

// Of all ranks' parts the whole. What several have is the same on all, and nothing is on none.
std::map<std::string, Tensor> joined(const std::vector<HeldPlaces>& held, const ModelConfig& config,
                                     const std::string& what) {
  std::map<std::string, Tensor> whole;
  for (const WeightSpec& spec : weight_specs(config)) {
    std::vector<std::string> kinds{"weight ", "average "};
    if (spec.role != WeightRole::kBalanceBias) kinds.insert(kinds.end(), {"m ", "v "});
    for (const std::string& kind : kinds) whole[kind + spec.name] = full({spec.num_values()}, NAN);
  }
  for (const HeldPlaces& h : held) whole.at(h.name).scatter_(0, h.places, h.values);
  for (const HeldPlaces& h : held)
    EXPECT_TRUE(whole.at(h.name).gather(0, h.places).equal(h.values)) << h.name << " in " << what;
  for (const auto& [name, values] : whole)
    EXPECT_FALSE(values.isnan().any().item<bool>()) << name << " is on no rank in " << what;
  return whole;
}

using Whole = std::map<std::string, Tensor>;

// Two steps in a layout, and what all ranks have after them.
Whole saved(const TrainConfig& config, const ModelConfig& model, const Layout& layout, const TrainRows& rows,
            const std::filesystem::path& folder) {
  std::vector<HeldPlaces> held;
  train(config, model, layout, rows, folder, -1, [&](Trainer& trainer) {
    for (HeldPlaces& h : held_by(trainer)) held.push_back(std::move(h));
  });
  return joined(held, model, layout.text());
}

// By ranks that began with other weights.
Whole loaded(TrainConfig config, const ModelConfig& model, const Layout& layout, const TrainRows& rows,
             const std::filesystem::path& checkpoint) {
  config.run.seed = 99;
  std::vector<HeldPlaces> held;
  std::mutex one_at_a_time;
  run_ranks(layout.ranks, [&](Comm& comm) {
    set_num_threads(1);
    Trainer trainer(layout.in(config), model, rows, {.comm = &comm});
    trainer.resume(checkpoint);
    EXPECT_EQ(trainer.counters().step, 2);
    const std::lock_guard lock(one_at_a_time);
    for (ModelPart& part : trainer.parts()) EXPECT_EQ(part.optimizer.num_steps(), 2);
    for (HeldPlaces& h : held_by(trainer)) held.push_back(std::move(h));
  });
  return joined(held, model, layout.text());
}

std::vector<Layout> every_kind() {
  return {kAlone,
          {.ranks = 2},
          {.ranks = 2, .shard = true},
          {.ranks = 3, .shard = true},
          {.ranks = 4},
          {.ranks = 2, .pipeline = 2, .schedule = "zb-v"},
          {.ranks = 2, .pipeline = 2, .schedule = "dualpipe"},
          {.ranks = 4, .pipeline = 2, .schedule = "gpipe", .shard = true},
          {.ranks = 4, .pipeline = 4, .schedule = "interleaved"},
          {.ranks = 4, .pipeline = 4, .schedule = "dualpipe", .shard = true},
          {.ranks = 2, .experts = 2},
          {.ranks = 4, .experts = 4, .shard = true},
          {.ranks = 4, .experts = 2, .shard = true},
          {.ranks = 4, .pipeline = 2, .schedule = "dualpipe-v", .experts = 2},
          {.ranks = 2, .tensor = 2},
          {.ranks = 4, .tensor = 2, .shard = true},
          {.ranks = 4, .experts = 2, .tensor = 2},
          {.ranks = 4, .pipeline = 2, .schedule = "zb-h1", .tensor = 2}};
}

TEST(CheckpointLayouts, WhatAnyLayoutSavesAnyOtherLoadsBitForBit) {
  const Variant variant = spread_variants()[2];
  TrainConfig config = layout_run(variant, 2);
  config.batch.sequences = 9, config.batch.workers = 8;
  ModelConfig model = deep_model(variant.mtp_depth);
  model.mla.num_heads = 4;
  const TrainRows rows = bordered_rows(config.batch.length + 1 + variant.mtp_depth);
  for (const Layout& first : every_kind()) {
    const TemporaryFolder folder;
    const Whole want = saved(config, model, first, rows, folder.path());
    const std::filesystem::path checkpoint = newest_checkpoint(folder.path());
    for (const Layout& second : every_kind()) {
      const Whole got = loaded(config, model, second, rows, checkpoint);
      ASSERT_EQ(got.size(), want.size());
      for (const auto& [name, values] : want)
        EXPECT_TRUE(got.at(name).equal(values))
            << name << ", saved by " << first.text() << ", loaded by " << second.text();
    }
  }
}

}  // namespace
}  // namespace hadal
