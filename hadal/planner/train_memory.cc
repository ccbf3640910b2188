#include "hadal/planner/train_memory.h"

#include <algorithm>
#include <optional>

#include "hadal/config/stage.h"
#include "hadal/parallel/pipeline.h"
#include "hadal/parallel/tree_sum.h"
#include "hadal/planner/rank_split.h"

namespace hadal {
namespace {

constexpr int64_t kF32 = 4;
constexpr int64_t kLogitsAtATime = 4 << 20;  // values, fused_head_loss()
constexpr int64_t kQueriesAtATime = 128;     // fused_attention()

// What a rank has of heads, columns and experts.
struct Sizes {
  Sizes(const ModelConfig& config, const MeshShape& mesh) : c(config), experts(mesh.experts) {
    c.mla.num_heads /= mesh.tensor, c.dense_dim /= mesh.tensor;
    shared_dim = c.moe.num_shared * c.moe.expert_dim / mesh.tensor;
  }
  ModelConfig c;
  int64_t shared_dim = 0, experts;
};

// fp32 values a token that one layer keeps for its backward pass.
int64_t kept_by_attention(const ModelConfig& c, bool selective) {
  const MlaConfig& a = c.mla;
  const int64_t K = a.key_dim(), V = a.value_dim, latents = a.kv_latent + a.query_latent;
  const int64_t input = c.width, output = a.num_heads * (2 * V + 1);  // twice: by head, and as out's input
  if (selective) return input + 2 * latents + a.kv_latent + 2 * a.rope_dim + output;
  return input + c.width + 2 * latents + a.num_heads * (2 * K + V) + output;
}

int64_t kept_by_ffn(const Sizes& s, bool is_moe, bool selective) {
  const ModelConfig& c = s.c;
  const int64_t kept_of_swiglu = selective ? 2 : 3, inputs = selective ? c.width : 2 * c.width;
  if (!is_moe) return inputs + kept_of_swiglu * c.dense_dim;
  const MoeConfig& m = c.moe;
  const int64_t choice = 10 * m.num_experts + 16 * m.top_k;  // logits, affinities and their losses; indices
  // Rows that came from other ranks, as many as go to them; where they go, as int64.
  const int64_t exchanged = s.experts > 1 ? m.top_k * (c.width + 6) : 0;
  return inputs + 2 * m.top_k * m.expert_dim + kept_of_swiglu * s.shared_dim + choice + exchanged;
}

// fp32 values a token of a stage, alive from its forward to its backward pass.
int64_t kept_values(const Sizes& s, const Stage& stage, const std::string& recompute) {
  const ModelConfig& c = s.c;
  const int64_t J = c.mtp_depth;
  int64_t sum = stage.has_embedding ? (1 + J) * c.width : 0;
  const auto layer = [&](int64_t i) {
    const bool selective = recompute == "selective";
    sum += recompute == "full" ? c.width + (c.is_moe(i) ? 8 * c.moe.num_experts + 4 * c.moe.top_k : 0)
                               : kept_by_attention(c, selective) + kept_by_ffn(s, c.is_moe(i), selective);
  };
  for (int64_t i = stage.first_layer; i < stage.last_layer; ++i) layer(i);
  if (!stage.has_head) return sum;
  for (int64_t j = 0; j < J; ++j) layer(c.num_layers + j);
  return sum + c.width + J * 6 * c.width + (1 + J) * c.width;  // final norms, joins; the head's gradients
}

// fp32 values a token of the largest backward operation, the experts' or attention's.
int64_t workspace_values(const Sizes& s, const TrainConfig& config) {
  const ModelConfig& c = s.c;
  const MlaConfig& a = c.mla;
  const int64_t K = a.key_dim(), V = a.value_dim;
  const int64_t scores = 2 * std::min(kQueriesAtATime, config.batch.length);
  const int64_t attention = a.num_heads * (scores + 3 * (2 * K + V) + 2 * V);
  const int64_t experts = c.moe.top_k * (3 * c.width + 4 * c.moe.expert_dim) + 2 * c.width;
  int64_t again = 0;
  if (config.compute.recompute == "full")
    again = kept_by_attention(c, false) + kept_by_ffn(s, c.is_moe(c.num_layers - 1), false);
  return std::max(attention, experts) + again;
}

// The slots of a step, and those of one data rank.
struct Slots {
  Slots(const TrainConfig& config, int64_t workers, const RankSplit& split) {
    const int64_t B = config.batch.sequences, micro = config.batch.micro;
    const int64_t rows = micro > 0 ? std::min(micro, B) : B, shares = std::min(workers, rows);
    count = (B + rows - 1) / rows * shares, rows_each = (rows + shares - 1) / shares;
    const int64_t D = split.mesh.data;
    for (int64_t r = 0; r <= D; ++r) first.push_back(first_slot(count, r, D));
    if (!split.spread())
      at_once = std::max<int64_t>(1, std::min({(workers + D - 1) / D, shares, of(split.place.data)}));
    tokens = std::min(rows, at_once * rows_each) * config.batch.length;
  }
  int64_t of(int64_t r) const { return first[static_cast<size_t>(r + 1)] - first[static_cast<size_t>(r)]; }
  int64_t count = 0, rows_each = 0, at_once = 1, tokens = 0;  // tokens: of the slots that run at once
  std::vector<int64_t> first;                                 // slot of each data rank, and the end
};

// Parameters of a stage on this rank: experts that ranks share out, and the others.
struct StageSize {
  int64_t dense = 0, experts = 0;
  bool has_embedding = false, has_head = false;
};
StageSize stage_size(const ModelConfig& model, const Stage& stage, const RankSplit& split) {
  StageSize size{.has_embedding = stage.has_embedding, .has_head = stage.has_head};
  for (const WeightSpec& spec : weight_specs(model)) {
    if (!holds(model, stage, spec)) continue;
    int64_t values = 1;
    for (const int64_t n : shape_of(spec, split.share())) values *= n;
    (split.mesh.experts > 1 && spec.split == WeightSplit::kExperts ? size.experts : size.dense) += values;
  }
  return size;
}

// Of the passes of this rank: values a token in flight at most, and of these when a backward pass ends.
struct InFlight {
  int64_t most = 0, others = 0;
};
InFlight in_flight(const std::vector<Action>& actions, const std::vector<int64_t>& kept) {
  InFlight found;
  int64_t now = 0;
  const auto of = [&](const Action& a) { return kept[static_cast<size_t>(a.stage)]; };
  for (const Action& a : actions) {
    if (a.pass == Pass::kForward) now += of(a);
    found.most = std::max(found.most, now);
    if (a.pass == Pass::kBackward || a.pass == Pass::kWeightGrad) {
      now -= of(a);
      found.others = std::max(found.others, now);
    }
  }
  return found;
}

// Bytes of a rank's weights that it sums with replicas, part after part: model_part.h.
struct SummedPart {
  int64_t values, replicas, pieces;  // of the sum, here
  int64_t all_pieces;                // of all replicas
  bool shard;
  int64_t own() const { return values * pieces; }
  int64_t result() const { return shard ? values / replicas : values; }
  // With the others' pieces of its share, and the sum: in the memory of its own, where all ranks have it.
  int64_t peak() const {
    if (replicas == 1) return own();
    const int64_t share = values / replicas, sum = shard ? share : pieces == 0 ? values : 0;
    return own() + (all_pieces - pieces) * share + sum;
  }
};

int64_t exchange_values(const std::vector<SummedPart>& parts) {
  int64_t waiting = 0, done = 0, most = 0;
  for (const SummedPart& part : parts) waiting += part.own();
  for (const SummedPart& part : parts) {
    waiting -= part.own();
    most = std::max(most, done + part.peak() + waiting);
    done += part.result();
  }
  return most;
}

// Of a rank that computes forward and backward passes of its own slots, on all of `split`.
class RankMemory {
 public:
  RankMemory(const ModelConfig& model, const TrainConfig& config, const RankSplit& split, const Slots& slots)
      : config_(config), split_(split), slots_(slots), sizes_(model, split.mesh) {
    for (const int stage : split.held)
      held_.push_back(stage_size(model, split.stages[static_cast<size_t>(stage)], split));
    if (split.mesh.pipeline > 1 && rounds() > 0) schedule_ = pairs_in_turn(split.schedule(rounds()));
  }

  void weights(TrainMemory& m) const {
    const int64_t of_moment = config_.optimizer.bf16_moments ? 4 : 8;
    for (size_t i = 0; i < held_.size(); ++i)
      for (const bool experts : {false, true}) {
        const int64_t values = experts ? held_[i].experts : held_[i].dense;
        m.weights += kF32 * values;
        const int64_t shares =
            config_.parallel.shard_optimizer ? split_.replicas(split_.held[i], experts) : 1;
        m.moments += of_moment * values / shares;
      }
    m.average = config_.optimizer.ema > 0 ? m.weights : 0;
  }

  void passes(TrainMemory& m) const {
    const ModelConfig& c = sizes_.c;
    const int64_t J = c.mtp_depth, table = c.vocab_size * c.width;
    std::vector<int64_t> kept(split_.stages.size());
    for (const int stage : split_.held)
      kept[static_cast<size_t>(stage)] =
          kept_values(sizes_, split_.stages[static_cast<size_t>(stage)], config_.compute.recompute);
    InFlight flight{.most = kept[0]};
    if (schedule_) flight = in_flight(schedule_->actions[static_cast<size_t>(split_.place.pipeline)], kept);
    m.activations = kF32 * slots_.tokens * flight.most, m.others = kF32 * slots_.tokens * flight.others;
    m.workspace = kF32 * slots_.tokens * workspace_values(sizes_, config_);
    for (const StageSize& stage : held_) {
      // Of experts that ranks share out, each sender's apart. Of the embedding one a use, before they are
      // added.
      const int64_t one =
          stage.dense + stage.experts * split_.mesh.experts + (stage.has_embedding ? (J + 1) * table : 0);
      m.gradients = std::max(m.gradients, kF32 * slots_.at_once * one);
      if (!stage.has_head) continue;
      const int64_t piece =
          std::min(std::max<int64_t>(kLogitsAtATime / c.vocab_size, 16), slots_.tokens / slots_.at_once);
      m.logits = kF32 * slots_.at_once * (piece * c.vocab_size + (1 + J) * table);
    }
    for (size_t i = 0; i < held_.size(); ++i) m.sums += kF32 * most_waiting(i);
  }

  void exchange(TrainMemory& m) const {
    if (split_.mesh.ranks() == 1) return;
    std::vector<SummedPart> parts;
    for (size_t i = 0; i < held_.size(); ++i)
      for (const bool experts : {false, true}) {
        const int64_t values = experts ? held_[i].experts : held_[i].dense;
        if (values == 0) continue;
        int64_t all = 0;
        for (const int64_t place : split_.places(split_.held[i]))
          for (int64_t r = 0; r < split_.mesh.data; ++r) all += pieces(i, place, r, slots_.count);
        parts.push_back({.values = values,
                         .replicas = split_.replicas(split_.held[i], experts),
                         .pieces = pieces_here(i, experts, slots_.count),
                         .all_pieces = all,
                         .shard = config_.parallel.shard_optimizer});
      }
    m.exchange = kF32 * exchange_values(parts);
  }

 private:
  int64_t rounds() const {
    int64_t most = 0;
    for (int64_t r = block(); r < block() + split_.mesh.experts; ++r) most = std::max(most, slots_.of(r));
    return most;
  }
  int64_t block() const { return split_.place.data / split_.mesh.experts * split_.mesh.experts; }
  // Of the sum over those slots of data rank r that go through the stage at `place` of the pipeline, when
  // `done` have.
  int64_t pieces(size_t i, int64_t place, int64_t r, int64_t done) const {
    TreeSum<int> sum(slots_.count, [](int&, int&&) {});
    for (int64_t m = 0; m < slots_.of(r) && done > 0; ++m) {
      if (schedule_ && schedule_->rank_of(split_.held[i], static_cast<int>(m)) != place) continue;
      const int64_t slot = slots_.first[static_cast<size_t>(r)] + m;
      sum.push(slot, slot + 1, 0);
      --done;
    }
    return std::ssize(sum.pieces());
  }
  // Of this rank's slots; of experts that ranks share out, of all of its block.
  int64_t pieces_here(size_t i, bool experts, int64_t done) const {
    if (!experts) return pieces(i, split_.place.pipeline, split_.place.data, done);
    int64_t sum = 0;
    for (int64_t r = block(); r < block() + split_.mesh.experts; ++r)
      sum += pieces(i, split_.place.pipeline, r, done);
    return sum;
  }
  // Values of a stage's sums while the next slots are computed, at most.
  int64_t most_waiting(size_t i) const {
    int64_t slots = 0, most = 0;
    for (int64_t m = 0; m < slots_.of(split_.place.data); ++m)
      slots += !schedule_ || schedule_->rank_of(split_.held[i], static_cast<int>(m)) == split_.place.pipeline;
    for (int64_t done = 0; done < slots; done += slots_.at_once)
      most = std::max(
          most, held_[i].dense * pieces_here(i, false, done) + held_[i].experts * pieces_here(i, true, done));
    return most;
  }

  const TrainConfig& config_;
  const RankSplit& split_;
  const Slots& slots_;
  Sizes sizes_;
  std::optional<Schedule> schedule_;  // as it runs; none without a pipeline
  std::vector<StageSize> held_;
};

}  // namespace

int64_t TrainMemory::passing() const {
  return std::max({start(), end(), exchange, gathered});
}

TrainMemory train_memory(const ModelConfig& model, const TrainConfig& config, int64_t workers, int64_t rank,
                         int64_t ranks) {
  const RankSplit split(config.parallel, model, config.batch.length, ranks, rank);
  const Slots slots(config, workers, split);
  const RankMemory of_rank(model, config, split, slots);
  TrainMemory m;
  of_rank.weights(m), of_rank.passes(m), of_rank.exchange(m);
  const int64_t whole_moments = config.optimizer.bf16_moments ? m.weights : 2 * m.weights;
  if (!split.spread()) {  // else each rank writes what it has
    if (ranks > 1 && config.parallel.shard_optimizer) m.gathered = whole_moments;
    if (config.checkpoint.background && rank == 0) m.checkpoint = m.weights + whole_moments + m.average;
  }
  // Measured: a heap that keeps what is freed ends a fifth above what is used at once.
  m.allocator = m.passing() / (config.compute.recompute == "none" ? 5 : 30);
  return m;
}

}  // namespace hadal
