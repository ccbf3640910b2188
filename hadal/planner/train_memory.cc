#include "hadal/planner/train_memory.h"

#include <algorithm>
#include <bit>

#include "hadal/planner.h"

namespace hadal {
namespace {

constexpr int64_t kF32 = 4;
constexpr int64_t kLogitsAtATime = 4 << 20;  // values, fused_head_loss()
constexpr int64_t kQueriesAtATime = 128;     // fused_attention()

// fp32 values a token that one layer keeps for its backward pass.
int64_t kept_by_attention(const ModelConfig& c, bool selective) {
  const MlaConfig& a = c.mla;
  const int64_t K = a.key_dim(), V = a.value_dim, latents = a.kv_latent + a.query_latent;
  const int64_t input = c.width, output = a.num_heads * (2 * V + 1);  // twice: by head, and as out's input
  if (selective) return input + 2 * latents + a.kv_latent + 2 * a.rope_dim + output;
  return input + c.width + 2 * latents + a.num_heads * (2 * K + V) + output;
}

int64_t kept_by_ffn(const ModelConfig& c, bool is_moe, bool selective) {
  const int64_t kept_of_swiglu = selective ? 2 : 3, inputs = selective ? c.width : 2 * c.width;
  if (!is_moe) return inputs + kept_of_swiglu * c.dense_dim;
  const MoeConfig& m = c.moe;
  const int64_t choice = 10 * m.num_experts + 16 * m.top_k;  // logits, affinities and their losses; indices
  return inputs + 2 * m.top_k * m.expert_dim + kept_of_swiglu * m.num_shared * m.expert_dim + choice;
}

// fp32 values a token alive at the start of the backward pass.
int64_t kept_values(const ModelConfig& c, const std::string& recompute) {
  const int64_t J = c.mtp_depth, ends = (2 + J) * c.width + J * 6 * c.width;  // embedding, final norms, joins
  int64_t sum = ends + (1 + J) * c.width;                                     // the head's gradients
  for (int64_t i = 0; i < c.num_layers + J; ++i) {
    const bool selective = recompute == "selective";
    sum += recompute == "full" ? c.width + (c.is_moe(i) ? 8 * c.moe.num_experts + 4 * c.moe.top_k : 0)
                               : kept_by_attention(c, selective) + kept_by_ffn(c, c.is_moe(i), selective);
  }
  return sum;
}

// fp32 values a token of the largest backward operation, the experts' or attention's.
int64_t workspace_values(const ModelConfig& c, const TrainConfig& config) {
  const MlaConfig& a = c.mla;
  const int64_t K = a.key_dim(), V = a.value_dim;
  const int64_t scores = 2 * std::min(kQueriesAtATime, config.batch.length);
  const int64_t attention = a.num_heads * (scores + 3 * (2 * K + V) + 2 * V);
  const int64_t experts = c.moe.top_k * (3 * c.width + 4 * c.moe.expert_dim) + 2 * c.width;
  int64_t again = 0;
  if (config.compute.recompute == "full")
    again = kept_by_attention(c, false) + kept_by_ffn(c, c.is_moe(c.num_layers - 1), false);
  return std::max(attention, experts) + again;
}

// Sums of gradients that wait in the tree of a step (TreeSum) while a micro-batch is computed, at most.
int64_t waiting_sums(int64_t micro_batches, int64_t sharing) {
  int most = 0;
  for (int64_t done = 0; done < micro_batches; ++done)
    most = std::max(most, std::popcount(static_cast<uint64_t>(done * sharing)));
  return most;
}

}  // namespace

int64_t TrainMemory::passing() const {
  return std::max(activations + logits + workspace, gradients);
}

TrainMemory train_memory(const ModelConfig& model, const TrainConfig& config, int64_t workers) {
  const ModelSize size = model_size(model);
  const int64_t P = size.main.total() + size.mtp.total(), J = model.mtp_depth;
  const int64_t B = config.batch.sequences, micro = config.batch.micro;
  const int64_t rows = micro > 0 ? std::min(micro, B) : B, sharing = std::min(workers, rows);
  const int64_t tokens = rows * config.batch.length, table = model.vocab_size * model.width;
  TrainMemory m{.weights = kF32 * P, .moments = (config.optimizer.bf16_moments ? 4 : 8) * P};
  m.average = config.optimizer.ema > 0 ? kF32 * P : 0;
  // Beside those of the workers, what earlier micro-batches left: sums of powers of two of them.
  m.gradients = kF32 * (P * (sharing + waiting_sums((B + rows - 1) / rows, sharing)) +
                        sharing * (J + 1) * table);  // embedding: one a use, before they are added
  m.activations = kF32 * tokens * kept_values(model, config.compute.recompute);
  const int64_t piece = std::min(std::max<int64_t>(kLogitsAtATime / model.vocab_size, 16), tokens / sharing);
  m.logits = kF32 * sharing * (piece * model.vocab_size + (1 + J) * table);
  m.workspace = kF32 * tokens * workspace_values(model, config);
  // Measured: a heap that keeps what is freed ends a fifth above what is used at once.
  m.allocator = m.passing() / (config.compute.recompute == "none" ? 5 : 30);
  m.checkpoint = config.checkpoint.background ? m.weights + m.moments + m.average : 0;
  return m;
}

}  // namespace hadal
