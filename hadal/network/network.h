// The whole network without gradients: the forward pass of inference, of evaluation and of rollouts, over
// kernels whose results do not depend on batch, chunks or threads (kernels/infer.h). Torch-free.
//
// Attention is absorbed throughout: the up-projection of keys moves into the query and that of values behind
// the sum, so that a token's result never depends on whether it came as prompt or one by one. Keys are taken
// in splits of fixed size, joined in ascending order.
#pragma once
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "hadal/network/latent_pages.h"
#include "hadal/network/weights.h"
#include "hadal/network/worker_pool.h"

namespace hadal {

struct AttentionGroup;
struct ExpertItem;
struct PreparedRows;
struct WorkerScratch;

// Consecutive tokens of one sequence in a step.
struct SequenceRows {
  int64_t position = 0;            // of the first; those before it are in the pages
  int64_t count = 0;               // >= 1
  std::span<const int32_t> pages;  // of the sequence, at least as many as hold position + count tokens
};

class Network {
 public:
  // The weights' owners are kept. Throws unsupported for shapes the kernels cannot take.
  Network(NetworkWeights weights, WorkerPool& pool);
  ~Network();

  // Runs the tokens of all sequences, T in sum, through the main layers: writes their latents and keys to the
  // pages (layers 0 .. num_layers-1) and returns their hidden states after the final norm, [T, D]; valid
  // until the next call. Ids must be within the vocabulary, pages within the storage.
  const float* forward(std::span<const int32_t> ids, std::span<const SequenceRows> sequences,
                       LatentPages& pages);

  // MTP module `depth` at the same positions: joins hidden [T, D] (forward's, or the previous module's) with
  // the embedding of the token depth + 1 further on, next_ids. Its rows go to layer num_layers + depth of the
  // pages.
  const float* mtp(int64_t depth, const float* hidden, std::span<const int32_t> next_ids,
                   std::span<const SequenceRows> sequences, LatentPages& pages);

  // logits [rows.size(), W] of the given rows of hidden [.., D].
  void logits(const float* hidden, std::span<const int32_t> rows, float* out);

  // Rows of one sequence that stay in the context when tokens before them leave it: num_rows rows from
  // first_position on (their new one; the start of a page) were drop_tokens further on. Latents are copied,
  // keys turned by the difference of the two rotations, in all layers of the pages. The latents themselves
  // were computed with the tokens that are gone.
  void shift_rows(std::span<const PageMove> moves, int64_t first_position, int64_t num_rows,
                  int64_t drop_tokens, LatentPages& pages);

  // What the gates chose in the last call: experts and weights of layer `layer` (a MoE layer or an MTP
  // module), [T, A] each; empty for dense layers.
  std::span<const int32_t> chosen_experts(int64_t layer) const;
  std::span<const float> expert_weights(int64_t layer) const;

  // The keys that row `row` of the last call attended to in its last layer, ascending, [top_k]. For models
  // with sparse attention and rows that see more than top_k keys.
  std::span<const int32_t> chosen_keys(int64_t row) const;

  const ModelConfig& config() const { return weights_.config; }
  const NetworkWeights& weights() const { return weights_; }
  int threads() const { return pool_.size(); }

 private:
  struct Step;       // one call: rows, groups of attention
  struct Workspace;  // buffers, grown as needed

  Step plan(std::span<const int32_t> ids, std::span<const SequenceRows> sequences);
  void reserve(const Step& step);
  void reserve_indexer(const Step& step);
  float eps() const;
  WorkRange share(const WeightView& w, int worker) const;  // of a matrix's rows

  // The following run on every worker; their shared buffers are handed over at barriers.
  // Rows x normed, those that this worker also prepares.
  const float* normed(const Step& step, int worker, const float* x, int64_t x_stride, const float* gain,
                      int64_t width);
  // M rows of K values in the layouts that the matrices want; all rows may be read afterwards.
  const PreparedRows& prepare(const Step& step, int worker, PreparedRows WorkerScratch::*set, const float* x,
                              int64_t x_stride, int64_t M, int64_t K,
                              std::initializer_list<const WeightView*> for_weights);
  void multiply(const WeightView& w, const PreparedRows& input, const int32_t* row_index, int64_t M, float* y,
                int64_t y_stride, WorkRange n, int worker);
  void add_to_stream(const Step& step, const float* y, WorkRange n);

  void layer(const LayerView& view, int64_t index, const Step& step, LatentPages& pages, int worker);
  void dense(const LayerView& view, const Step& step, int worker);

  void attention(const LayerView& view, int64_t index, const Step& step, LatentPages& pages, int worker);
  void write_rows(const MlaView& mla, int64_t index, const Step& step, LatentPages& pages, int worker);
  void write_index_keys(const IndexerView& indexer, int64_t index, const Step& step, LatentPages& pages,
                        int worker);
  void index_queries(const IndexerView& indexer, const Step& step, const PreparedRows& latents,
                     const LatentPages& pages, int worker);
  void index_products(int64_t row, const WeightView& keys, bool rounded, const Step& step, int worker);
  void score_keys(const AttentionGroup& group, WorkRange keys, int64_t index, const Step& step,
                  const LatentPages& pages, int worker, float* score);
  void choose_keys_of(int64_t index, const Step& step, const LatentPages& pages, int worker);
  // `rounded`: to bf16, for attend_split_bf16.
  void absorb(const MlaView& mla, const Step& step, int64_t head, bool rounded, int worker);
  void attend(int64_t index, const Step& step, const LatentPages& pages, int worker);
  void attend_split(const AttentionGroup& group, int64_t split, int64_t index, const Step& step,
                    const LatentPages& pages, int worker, float* max, float* sum, float* out);
  void attend_split_bf16(const AttentionGroup& group, int64_t split, int64_t index, const Step& step,
                         const LatentPages& pages, int worker, float* max, float* sum, float* out);
  // Latents and keys of `count` keys of a group from its key `first` on, as LatentPages::read() and
  // read_bf16().
  const float* key_rows(const AttentionGroup& group, int64_t first, int64_t count, int64_t index,
                        const Step& step, const LatentPages& pages, float* scratch) const;
  const uint16_t* key_rows_bf16(const AttentionGroup& group, int64_t first, int64_t count, int64_t index,
                                const Step& step, const LatentPages& pages, float* scratch,
                                uint16_t* rounded) const;
  void prefetch_keys(const AttentionGroup& group, int64_t split, int64_t key, int64_t index, const Step& step,
                     const LatentPages& pages) const;
  // For the query rows (token, head) of a group that see keys of a split, M from the skip-th on: how many of
  // its keys each one sees.
  struct SplitRows {
    int64_t first_key, L, skip, M;
  };
  SplitRows split_rows(const AttentionGroup& group, int64_t split, int64_t* visible) const;
  void join_parts(const Step& step, int64_t head);
  void value_head(const MlaView& mla, const Step& step, int64_t head, int worker);

  void mixture(const LayerView& view, int64_t index, const Step& step, int worker);
  void choose_experts(const MoeView& moe, int64_t index, const Step& step, const PreparedRows& input,
                      int worker);
  void group_by_expert(const MoeView& moe, int64_t index, const Step& step);
  void expert_hidden(const Step& step, const PreparedRows& input, int worker);
  void expert_outputs(const Step& step, int worker);
  int64_t prepared_offset(const ExpertItem& item, WeightFormat format) const;

  NetworkWeights weights_;
  WorkerPool& pool_;
  std::vector<float> frequency_;
  float rope_multiplier_ = 1, softmax_scale_ = 1;
  std::unique_ptr<Workspace> ws_;
};

}  // namespace hadal
