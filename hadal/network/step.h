// One call of the network: its rows, and the buffers between kernels. Internal to hadal/network.
#pragma once
#include <array>
#include <vector>

#include "hadal/base/aligned_buffer.h"
#include "hadal/network/network.h"

namespace hadal {

constexpr int64_t kSplitKeys = 256;      // keys whose softmax is one piece; the pieces are joined in order
constexpr int64_t kGroupRows = 192;      // about so many query rows (tokens x heads) attend together
constexpr int64_t kRedundantTokens = 4;  // up to so many, every worker repeats small work instead of waiting
constexpr int64_t kOutputUnit = 16;      // workers' shares of a matrix's rows are multiples of this
constexpr int kNumLayouts = 4;           // kernels' layouts of prepared rows are numbered below this

// Consecutive tokens of one sequence whose queries attend together; or one token that an indexer chooses the
// keys for, which then stand where a token's first top_k keys would: it is as if at position top_k - 1.
struct AttentionGroup {
  size_t sequence = 0;
  int64_t row = 0, tokens = 0;  // rows of the step
  int64_t position = 0;         // of the first
  int64_t chooses_from = 0;     // keys that are chosen from; 0: no choice, all are taken
  int64_t splits = 0;           // of the keys that the last token sees
  int64_t first_part = 0;  // index of its first (split, token, head) in the workspace, if shared out by split
};

struct Network::Step {
  std::span<const int32_t> ids;
  std::span<const SequenceRows> sequences;
  int64_t T = 0;
  bool redundant = false;         // few rows: see kRedundantTokens
  std::vector<int64_t> position;  // [T]
  std::vector<int32_t> page;      // [T] page and place in it of each row
  std::vector<int64_t> offset;    // [T]
  std::vector<AttentionGroup> groups;
  bool by_split = false;  // too few groups for the workers: they share out the splits
  int64_t num_parts = 0;
  int64_t longest = 0;  // keys that a group chooses from, at most, in whole splits; 0: none chooses
};

// Rows prepared for matrix products, by layout.
struct PreparedRows {
  std::array<AlignedBuffer<std::byte>, kNumLayouts> rows;
};

// A worker's own.
struct WorkerScratch {
  PreparedRows input, second;
  AlignedBuffer<float> normed, product, score, keys, out, max, sum, choice;
  AlignedBuffer<float> index_product, index_score, index_order;  // of one token's index heads and keys
  AlignedBuffer<int32_t> index_row;
  AlignedBuffer<std::byte> dot, head_rows;
  AlignedBuffer<int64_t> visible;
  AlignedBuffer<int32_t> query_index;
  AlignedBuffer<uint16_t> key_units, cached, prob, index_units;  // of attention on bf16
};

// An expert with the tokens that chose it, or the shared expert with all of them.
struct ExpertItem {
  const MlpView* weights = nullptr;
  int64_t first = 0, count = 0;     // places, in expert order; the shared expert's follow all others
  int64_t value = 0;                // where its hidden rows begin
  const int32_t* tokens = nullptr;  // of its places; null: token i at place i
};

struct Network::Workspace {
  std::vector<WeightFormat> formats;  // of the model's matrices, distinct layouts only
  int64_t max_K = 0;                  // widest input of any matrix
  std::vector<WorkerScratch> worker;
  // Shared. T rows each unless noted.
  AlignedBuffer<float> x, normed, product, hidden, mtp_hidden[2], joined, q_latent, kv, query, heads, gate,
      up;
  AlignedBuffer<float> cos, sin;                                  // [T, R/2]
  AlignedBuffer<std::byte> query_rows;                            // [H, T] prepared rows of C+R
  AlignedBuffer<uint16_t> query_bf16;                             // [T, H, C+R], instead
  AlignedBuffer<float> part_max, part_sum, part_out, latent_out;  // parts; [T, H, C]
  AlignedBuffer<float> index_key, index_query, index_weight;      // [T, Y], [T, X, Y], [T, X]
  AlignedBuffer<std::byte> index_rows;                            // [X, T] prepared rows of Y
  AlignedBuffer<uint16_t> index_bf16;                             // [T, X, Y], instead
  AlignedBuffer<float> index_score;  // of the keys that groups choose from, if workers share those out
  AlignedBuffer<int32_t> chosen;     // [T, top_k], of tokens that choose
  AlignedBuffer<float> router, mixed;
  AlignedBuffer<std::byte> head_input;       // logits
  std::vector<std::vector<int32_t>> expert;  // by layer, [T, A]
  std::vector<std::vector<float>> weight;
  std::vector<int32_t> token;       // [T*A] of each place in expert order
  std::vector<float> place_weight;  // [T*A]
  std::vector<int64_t> begin;       // [E+1] while grouping
  std::vector<ExpertItem> items;
};

}  // namespace hadal
