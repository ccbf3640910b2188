// Short training runs in any layout of ranks, as threads, for tests that compare them bit for bit.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "hadal/checkpoint/load.h"
#include "hadal/config/weight_share.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "hadal/train/loop.h"
#include "tests/support/error_of.h"
#include "tests/support/small_model.h"
#include "tests/support/temporary_folder.h"

namespace hadal {

constexpr int64_t kWorkers = 4;

// Large enough that embedding and head are cut between ranks.
inline ModelConfig layout_model(int64_t mtp_depth) {
  ModelConfig c = small_model(mtp_depth);
  c.vocab_size = 700;
  return c;
}

// Four layers, of which one is dense, and MTP.
inline ModelConfig deep_model(int64_t mtp_depth) {
  ModelConfig c = layout_model(mtp_depth);
  c.num_layers = 4, c.vocab_size = 700;
  return c;
}

// Rows with a document border each, at places that differ: ranks have unequal numbers of targets.
inline TrainRows bordered_rows(int64_t X) {
  return {.read =
              [X](int64_t first, int64_t n) {
                std::vector<int64_t> ids, starts;
                for (int64_t row = first; row < first + n; ++row)
                  for (int64_t i = 0; i < X; ++i) {
                    ids.push_back((row * 131 + i * i * 7 + i * 3) % 700);
                    const int64_t border = row % 3 == 0 ? X : 1 + row * 5 % (X - 2);
                    starts.push_back(i < border ? 0 : border);
                  }
                return TrainBatch(from_ints(ids).view({n, X}), from_ints(starts).view({n, X}));
              },
          .fingerprint = "bordered"};
}

// The same with held-out data.
inline TrainRows measured_rows(const TrainConfig& config, int64_t mtp_depth) {
  TrainRows rows = bordered_rows(config.batch.length + 1 + mtp_depth);
  const TrainBatch held_out = rows.read(1000, 10);
  rows.held_out_NX = held_out.window_BX, rows.held_out_start_NX = held_out.segment_start_BX;
  rows.token_bytes.assign(700, 3);
  return rows;
}

inline const char* const kSchedules[] = {"gpipe", "1f1b",     "interleaved", "zb-h1",
                                         "zb-v",  "dualpipe", "dualpipe-v"};

// Ranks, and what they share out of one model.
struct Layout {
  int64_t ranks = 1, pipeline = 1;
  const char* schedule = "1f1b";
  int64_t experts = 1, tensor = 1;
  bool shard = false;  // ZeRO-1

  std::string text() const {
    std::string out = std::to_string(ranks) + " ranks";
    if (pipeline > 1) out += ", pipeline " + std::to_string(pipeline) + " " + schedule;
    if (experts > 1) out += ", experts over " + std::to_string(experts);
    if (tensor > 1) out += ", tensor " + std::to_string(tensor);
    return out + (shard ? ", ZeRO-1" : "");
  }
  TrainConfig in(TrainConfig config) const {
    config.parallel.pipeline = pipeline, config.parallel.schedule = schedule;
    config.parallel.experts = experts, config.parallel.tensor = tensor;
    config.parallel.shard_optimizer = shard;
    return config;
  }
};
inline const Layout kAlone{};

struct Variant {
  const char* name;
  std::function<void(TrainConfig&)> set;
  int64_t mtp_depth = 1;
};

inline std::vector<Variant> variants() {
  return {
      {"plain", [](TrainConfig& c) { c.loss.balance_alpha = 0, c.loss.bias_step = 0; }, 0},
      {"experts, balance loss and bias",
       [](TrainConfig& c) { c.loss.balance_alpha = 0.1, c.loss.bias_step = 0.1; }, 0},
      {"two MTP modules", [](TrainConfig& c) { c.loss.mtp_weight = 0.5; }, 2},
      {"V2's losses",
       [](TrainConfig& c) {
         c.loss.expert_alpha = 0.1, c.loss.device_alpha = 0.2, c.loss.communication_alpha = 0.3;
       }},
      {"dropped tokens",
       [](TrainConfig& c) { c.loss.capacity_factor = 1, c.loss.never_dropped_share = 0.3; }},
      {"clipped", [](TrainConfig& c) { c.optimizer.clip = 0.05; }},
      {"recomputed", [](TrainConfig& c) { c.compute.recompute = "full"; }},
      {"micro-batches", [](TrainConfig& c) { c.batch.sequences = 12, c.batch.micro = 5; }},
      {"bf16 moments and an average",
       [](TrainConfig& c) { c.optimizer.bf16_moments = true, c.optimizer.ema = 0.9; }},
      {"a batch that grows from one row",
       [](TrainConfig& c) { c.batch.start = 1, c.batch.ramp_tokens = 400; }},
  };
}

// For ranks that share a model out.
inline std::vector<Variant> spread_variants() {
  return {
      {"balance loss, bias, two MTP modules, clipped",
       [](TrainConfig& c) { c.loss.balance_alpha = 0.1, c.loss.bias_step = 0.1, c.optimizer.clip = 0.05; },
       2},
      {"V2's losses, dropped tokens, selective recomputing, no MTP",
       [](TrainConfig& c) {
         c.loss.expert_alpha = 0.1, c.loss.device_alpha = 0.2, c.loss.communication_alpha = 0.3;
         c.loss.capacity_factor = 1, c.loss.never_dropped_share = 0.3, c.compute.recompute = "selective";
       },
       0},
      {"recomputed, bf16 moments and an average",
       [](TrainConfig& c) {
         c.compute.recompute = "full", c.optimizer.bf16_moments = true, c.optimizer.ema = 0.9;
       }},
  };
}

inline TrainConfig layout_run(const Variant& variant, int64_t steps = 10) {
  TrainConfig c;
  c.run.steps = steps, c.run.seed = 1, c.data.text = "-";
  c.batch.sequences = 7, c.batch.length = 12, c.batch.workers = kWorkers;
  c.schedule.warmup_steps = 2, c.optimizer.lr = 1e-2;
  c.checkpoint.background = false, c.eval.loads_every = 0;
  variant.set(c);
  return c;
}

// What a rank has of a weight: [first, ...) of a dimension, all of the others.
struct HeldWeight {
  Tensor values;
  int64_t first = 0, dim = 0;
  Tensor of(const Tensor& whole) const { return whole.narrow(dim, first, values.size(dim)); }
};
using NamedWeights = std::map<std::string, HeldWeight>;

// What a run came to: numbers of every step, weights of every rank, the moments.
struct Outcome {
  std::vector<double> numbers;
  std::vector<NamedWeights> weights;  // that each rank has
  std::vector<Tensor> moments;        // not of ranks that share the model out
  std::vector<double> measured;       // on held-out data
};

inline NamedWeights copies(Transformer& model) {
  NamedWeights out;
  for_each_weight(model.config(), model.weights(), [&](const WeightSpec& spec, Tensor& w) {
    const WeightPart part = part_of(spec, model.share());
    out[spec.name] = {w.detach().clone(), part.begin, part.dim};
  });
  return out;
}

// From where `folder` is, if it is given; stops after `stop_after` steps of this process. `ended` sees each
// rank's trainer at the end, one at a time.
inline Outcome train(const TrainConfig& given, const ModelConfig& model, const Layout& layout,
                     const TrainRows& rows, const std::filesystem::path& folder = {}, int64_t stop_after = -1,
                     const std::function<void(Trainer&)>& ended = {}) {
  const TrainConfig config = layout.in(given);
  Outcome outcome;
  outcome.weights.resize(static_cast<size_t>(layout.ranks));
  std::mutex one_at_a_time;
  run_ranks(layout.ranks, [&](Comm& comm) {
    set_num_threads(1);
    std::optional<CheckpointStore> store;
    std::atomic<bool> stop{false};
    TrainHooks hooks{.stop = &stop, .clock = [] { return 0.0; }, .comm = &comm};
    if (comm.rank() == 0) {
      if (!folder.empty())
        hooks.checkpoints =
            &store.emplace(folder, 2, false, std::map<std::string, std::string>(), [](const std::string&) {});
      hooks.report = [&](const TrainProgress& p) {
        for (const double x : {p.loss, p.mtp_loss, p.balance_loss, p.grad_norm, p.max_violation, p.rate})
          outcome.numbers.push_back(x);
      };
      hooks.measured = [&](const EvalRecord& r) {
        outcome.measured.insert(outcome.measured.end(),
                                {r.loss, r.bits_per_byte.value_or(-1), r.max_vio.value_or(-1)});
        outcome.measured.insert(outcome.measured.end(), r.mtp_acceptance.begin(), r.mtp_acceptance.end());
      };
    }
    // A signal that reaches one rank only, the last.
    int64_t reads = 0;
    TrainRows mine = rows;
    mine.read = [&](int64_t first, int64_t n) {
      if (++reads == stop_after && comm.rank() == comm.size() - 1) stop = true;
      return rows.read(first, n);
    };
    Trainer trainer(config, model, mine, hooks);
    trainer.resume();
    const TrainEnd end = trainer.run();
    EXPECT_EQ(end, stop_after > 0 ? TrainEnd::kStopped : TrainEnd::kFinished);
    outcome.weights[static_cast<size_t>(comm.rank())] = copies(trainer.model());
    if (ended) {
      const std::lock_guard lock(one_at_a_time);
      ended(trainer);
    }
    if (layout.pipeline > 1 || layout.experts > 1 || layout.tensor > 1) return;
    std::vector<AdamW::Moments> moments = trainer.gather_state();
    if (comm.rank() == 0)
      for (const AdamW::Moments& each : moments)
        outcome.moments.push_back(each.m.clone()), outcome.moments.push_back(each.v.clone());
  });
  return outcome;
}

inline bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!a[i].flatten().equal(b[i].flatten())) return false;
  return a.size() == b.size();
}

// Is nothing of the weights of one process on no rank?
inline bool covers(const Outcome& got, const Outcome& want) {
  std::map<std::string, Tensor> there;
  for (const auto& [name, whole] : want.weights[0]) there[name] = zeros(whole.values.sizes());
  for (const NamedWeights& rank : got.weights)
    for (const auto& [name, held] : rank) held.of(there.at(name)).fill_(1);
  for (const auto& [name, marks] : there)
    if (!marks.all().item<bool>()) return false;
  return true;
}

// Each rank's weights are those of one process, and nothing of these is on no rank.
inline bool same_weights(const Outcome& got, const Outcome& want) {
  for (const NamedWeights& rank : got.weights)
    for (const auto& [name, held] : rank)
      if (!held.values.equal(held.of(want.weights[0].at(name).values))) return false;
  return covers(got, want);
}

inline void expect_same_run(const Outcome& got, const Outcome& want, const std::string& what) {
  EXPECT_EQ(got.numbers, want.numbers) << what;
  EXPECT_EQ(got.measured, want.measured) << what;
  EXPECT_TRUE(same_weights(got, want)) << what;
}

// `ended` after a run that was `begun` elsewhere: the steps of both.
inline Outcome joined(const Outcome& begun, Outcome ended) {
  ended.numbers.insert(ended.numbers.begin(), begun.numbers.begin(), begun.numbers.end());
  ended.measured.insert(ended.measured.begin(), begun.measured.begin(), begun.measured.end());
  return ended;
}

inline std::filesystem::path newest_checkpoint(const std::filesystem::path& checkpoints) {
  CheckpointStore store(checkpoints, 2, false, {}, [](const std::string& text) { ADD_FAILURE() << text; });
  return store.newest().value();
}

// The weights of the newest checkpoint and of its average.
inline std::vector<Tensor> stored(const std::filesystem::path& checkpoints, const ModelConfig& model) {
  const std::filesystem::path newest = newest_checkpoint(checkpoints);
  std::vector<Tensor> tensors;
  for (const auto& folder : {newest, newest / "ema"}) {
    ModelWeights weights = load_weights(model, open_checkpoint(folder), DType::kF32);
    for_each_weight(model, weights, [&](const WeightSpec&, Tensor& w) { tensors.push_back(w); });
  }
  return tensors;
}

// Each run is stopped after 4 steps in one layout and goes on in the same and in the next of the list. What
// came of it and is in its last checkpoint is held by `same` against one process's unbroken run.
inline void expect_any_goes_on_in_another(
    const TrainConfig& config, const ModelConfig& model, const TrainRows& rows,
    const std::vector<Layout>& layouts,
    const std::function<void(const Outcome& got, const Outcome& want, const std::vector<Tensor>& got_stored,
                             const std::vector<Tensor>& want_stored, const std::string& what)>& same) {
  const TemporaryFolder unbroken;
  const Outcome whole = train(config, model, kAlone, rows, unbroken.path());
  const std::vector<Tensor> want = stored(unbroken.path(), model);
  for (size_t i = 0; i < layouts.size(); ++i)
    for (const size_t next : {i, (i + 1) % layouts.size()}) {
      const std::string what = layouts[i].text() + "; then " + layouts[next].text();
      const TemporaryFolder folder;
      const Outcome begun = train(config, model, layouts[i], rows, folder.path(), 4);
      EXPECT_EQ(begun.numbers.size(), 24u) << what;
      const Outcome ended = joined(begun, train(config, model, layouts[next], rows, folder.path()));
      same(ended, whole, stored(folder.path(), model), want, what);
    }
}

inline void expect_any_goes_on_in_another_bit_for_bit(const TrainConfig& config, const ModelConfig& model,
                                                      const TrainRows& rows,
                                                      const std::vector<Layout>& layouts) {
  expect_any_goes_on_in_another(config, model, rows, layouts,
                                [](const Outcome& got, const Outcome& want, const auto& got_stored,
                                   const auto& want_stored, const std::string& what) {
                                  expect_same_run(got, want, what);
                                  EXPECT_TRUE(same_bits(got_stored, want_stored)) << what;
                                });
}

// Why a run cannot be: what Trainer says to `set` configurations, or "no error".
inline std::string refusal(int64_t ranks,
                           const std::function<void(TrainConfig&, ModelConfig&, TrainRows&)>& set,
                           TrainConfig config, ModelConfig model, TrainRows rows) {
  return error_of([&] {
    set(config, model, rows);
    run_ranks(ranks, [&](Comm& comm) { Trainer(config, model, rows, {.comm = &comm}); });
  });
}

}  // namespace hadal
