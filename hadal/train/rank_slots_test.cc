// Gradients of a step by ranks that share out experts, heads and rows are those of one process.
#include "hadal/train/rank_slots.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "hadal/parallel/expert_all_to_all.h"
#include "hadal/parallel/mesh.h"
#include "hadal/parallel/rank_tensor_sum.h"
#include "hadal/planner/rank_split.h"
#include "hadal/tensor/make.h"
#include "hadal/train/balance.h"
#include "hadal/train/pipeline_stages.h"
#include "hadal/train/rank_sum.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

constexpr int64_t kLength = 12;

struct Variant {
  const char* name;
  std::function<void(LossConfig&)> set;
  int64_t mtp_depth = 1, rows = 8, micro = 0, query_latent = 16;
};

std::vector<Variant> variants() {
  return {
      {"plain", [](LossConfig& c) { c.balance_alpha = 0; }, 0},
      {"two MTP modules and the balance loss", [](LossConfig& c) { c.balance_alpha = 0.1; }, 2},
      {"V2's losses",
       [](LossConfig& c) { c.expert_alpha = 0.1, c.device_alpha = 0.2, c.communication_alpha = 0.3; }},
      {"dropped tokens", [](LossConfig& c) { c.capacity_factor = 1; }},
      {"recomputed layers", [](LossConfig& c) { c.recompute = Recompute::kFull; }},
      {"recomputed norms", [](LossConfig& c) { c.recompute = Recompute::kSelective; }},
      {"micro-batches, unequal slots", [](LossConfig&) {}, 1, 11, 5},
      {"fewer rows than ranks", [](LossConfig&) {}, 1, 2},
      {"queries without a latent", [](LossConfig&) {}, 1, 6, 0, 0},
  };
}

ModelConfig model_of(const Variant& v) {
  ModelConfig c = small_model(v.mtp_depth);
  c.mla.query_latent = v.query_latent;
  return c;
}

// With a document border in each row, at places that differ.
TrainBatch batch_of(const Variant& v) {
  std::vector<int64_t> ids, starts, kept;
  const int64_t X = kLength + 1 + v.mtp_depth;
  for (int64_t row = 0; row < v.rows; ++row) {
    kept.push_back(row % 3 == 0);
    for (int64_t i = 0; i < X; ++i) {
      ids.push_back((row * 31 + i * i * 7 + i * 3) % 128);
      starts.push_back(i < 2 + row ? 0 : 2 + row);
    }
  }
  return TrainBatch(from_ints(ids).view({v.rows, X}), from_ints(starts).view({v.rows, X}),
                    from_ints(kept).to(at::kBool));
}

struct Layout {
  const char* name;
  MeshShape mesh;
};

// Gradients of all weights, whole, by name; and the step's numbers and loads.
struct Outcome {
  std::map<std::string, Tensor> gradients;
  StepLoss loss;
};

// What a rank's gradients are of the whole ones.
void put(Outcome& out, const WeightSpec& spec, const WeightShare& share, const Tensor& part) {
  Tensor& whole = out.gradients[spec.name];
  if (!whole.defined()) whole = full(spec.shape, NAN);
  const WeightPart p = part_of(spec, share);
  whole.narrow(p.dim, p.begin, p.size).copy_(part.view(shape_of(spec, share)));
}

// The trained weights of a share, all or those that ranks share out or not.
std::vector<WeightSpec> specs_of(const ModelConfig& config, std::optional<bool> experts) {
  std::vector<WeightSpec> specs;
  for (const WeightSpec& spec : weight_specs(config))
    if (spec.role != WeightRole::kBalanceBias &&
        experts.value_or(spec.split == WeightSplit::kExperts) == (spec.split == WeightSplit::kExperts))
      specs.push_back(spec);
  return specs;
}

// Of the ranks that have these weights all together: each the whole sum.
std::vector<Tensor> summed(Comm& comm, const std::vector<WeightSpec>& specs, const WeightShare& share,
                           TreeSum<Gradients>& mine) {
  std::vector<int64_t> sizes;
  for (const WeightSpec& spec : specs) {
    sizes.push_back(1);
    for (const int64_t size : shape_of(spec, share)) sizes.back() *= size;
  }
  return whole_sum_of_gradients(comm, ShardLayout(sizes, comm.size()), mine);
}

Outcome run_layout(const Variant& v, const MeshShape& shape) {
  const ModelConfig config = model_of(v);
  const TrainBatch batch = batch_of(v);
  const std::vector<RowSlot> slots = row_slots(v.rows, v.micro, 4);
  LossConfig loss;
  v.set(loss);
  const LossDivisor divisor{.targets = count_targets(config, batch), .rows = v.rows};
  Outcome outcome;
  std::mutex mutex;
  run_ranks(shape.ranks(), [&](Comm& all) {
    set_num_threads(1);
    Mesh mesh(all, shape);
    const WeightShare share{mesh.experts().rank(), mesh.experts().size(), mesh.tensor().rank(),
                            mesh.tensor().size()};
    Transformer model(config, random_weights(config, 1, share), share);
    const bool share_out = share.expert_ranks > 1;
    std::vector<Transformer> replicas;
    replicas.push_back(replica_of(model, share.expert_ranks));
    ExpertAllToAll exchange(mesh.experts());
    RankTensorSum sum(mesh.tensor());
    LossConfig mine = loss;
    if (share_out) mine.exchange = &exchange;
    if (shape.tensor > 1) mine.tensor_sum = &sum;
    const auto n = static_cast<int64_t>(slots.size());
    std::vector<int64_t> first;
    const int64_t D = mesh.data().size(), block = mesh.data().rank() - mesh.experts().rank();
    for (int64_t r = block; r <= block + shape.experts; ++r) first.push_back(first_slot(n, r, D));
    const auto row = [&](int64_t slot) { return slot < n ? slots[static_cast<size_t>(slot)].first : v.rows; };
    const int64_t me = mesh.experts().rank(), begin = row(first[static_cast<size_t>(me)]),
                  end = row(first[static_cast<size_t>(me + 1)]);
    const TrainBatch rows = batch.rows(begin == v.rows ? 0 : begin, end - begin);
    const RankSlots of_rank{rows, slots, first, me};
    const std::vector<Stage> stages{whole_model(config)};
    PipelineStages work(stages, {0}, replicas, of_rank, mine, divisor);
    for (int round = 0; round < of_rank.rounds(); ++round) {
      work.forward(0, round, {});
      work.backward(0, round, {}, /*input_only=*/false);
    }
    set_num_threads(1);
    std::vector<TreeSum<Gradients>> sums = work.take_sums();
    const StepLoss numbers = sum_losses(mesh.data(), of_rank.begin(me), work.losses());
    for (size_t kind = 0; kind < sums.size(); ++kind) {
      const std::vector<WeightSpec> specs =
          specs_of(config, share_out ? std::optional<bool>(kind == 1) : std::nullopt);
      const std::vector<Tensor> gradients =
          summed(kind == 0 ? mesh.data() : mesh.expert_data(), specs, share, sums[kind]);
      const std::lock_guard lock(mutex);
      for (size_t i = 0; i < specs.size(); ++i) put(outcome, specs[i], share, gradients[i]);
    }
    const std::lock_guard lock(mutex);
    outcome.loss = numbers;
  });
  return outcome;
}

// By one process's workers, without any of this.
Outcome run_one(const Variant& v) {
  set_num_threads(1);
  const ModelConfig config = model_of(v);
  const TrainBatch batch = batch_of(v);
  const std::vector<RowSlot> slots = row_slots(v.rows, v.micro, 4);
  LossConfig loss;
  v.set(loss);
  Transformer model(config, random_weights(config, 1));
  GradientWorkers workers(model, 4);
  SlotResults found = workers.run(batch, slots, 0, static_cast<int64_t>(slots.size()), loss,
                                  {.targets = count_targets(config, batch), .rows = v.rows});
  Outcome outcome;
  for (const StepLoss& part : found.losses) add(outcome.loss, part);
  size_t i = 0;
  for (const WeightSpec& spec : weight_specs(config))
    if (spec.role != WeightRole::kBalanceBias)
      put(outcome, spec, {}, found.gradients.pieces().front().value[i++]);
  return outcome;
}

void expect_loads(const Outcome& got, const Outcome& want, const std::string& what) {
  ASSERT_EQ(got.loss.loads.size(), want.loss.loads.size()) << what;
  for (size_t i = 0; i < want.loss.loads.size(); ++i)
    EXPECT_TRUE(got.loss.loads[i].count_E.equal(want.loss.loads[i].count_E)) << what;
}

TEST(RankSlots, AnyBlocksOfRanksGiveTheGradientsOfOneProcessBitForBit) {
  for (const Variant& v : variants()) {
    const Outcome one = run_one(v);
    for (const Layout& layout :
         {Layout{"2 shares", {.data = 2, .experts = 2}}, Layout{"4 shares", {.data = 4, .experts = 4}},
          Layout{"2 blocks of 2", {.data = 4, .experts = 2}}}) {
      const std::string what = std::string(v.name) + ", " + layout.name;
      const Outcome got = run_layout(v, layout.mesh);
      for (const auto& [name, gradient] : one.gradients)
        EXPECT_TRUE(got.gradients.at(name).equal(gradient)) << what << ": " << name;
      EXPECT_EQ(got.loss.total, one.loss.total) << what;
      EXPECT_EQ(got.loss.main, one.loss.main) << what;
      EXPECT_EQ(got.loss.balance, one.loss.balance) << what;
      EXPECT_EQ(got.loss.mtp, one.loss.mtp) << what;
      expect_loads(got, one, what);
    }
  }
}

// Heads and columns in two parts add up in another order, in fp32: 1e-6 of the largest gradient.
TEST(RankSlots, HeadsAndColumnsOnSeveralRanksGiveTheGradientsOfOneProcess) {
  for (const Variant& v : variants()) {
    const Outcome one = run_one(v);
    for (const Layout& layout :
         {Layout{"2 parts", {.tensor = 2}}, Layout{"2 parts of 2 ranks", {.data = 2, .tensor = 2}},
          Layout{"2 parts, 2 shares", {.data = 2, .experts = 2, .tensor = 2}}}) {
      const std::string what = std::string(v.name) + ", " + layout.name;
      const Outcome got = run_layout(v, layout.mesh);
      for (const auto& [name, gradient] : one.gradients)
        EXPECT_LE((got.gradients.at(name) - gradient).abs().max().item<double>(),
                  1e-6 * gradient.abs().max().item<double>() + 1e-9)
            << what << ": " << name;
      EXPECT_NEAR(got.loss.total, one.loss.total, 1e-6 * one.loss.total) << what;
      expect_loads(got, one, what);
    }
  }
}

}  // namespace
}  // namespace hadal
