// What a model is worth on a text, as it is served: weights as stored, the cache in its format, the kernels
// of inference. Torch-free. (The trainer measures its own weights: train/evaluate.h.)
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hadal/network/network.h"

namespace hadal {

struct TextScore {
  double loss = 0;                      // mean cross entropy of the main model, nats a token
  std::optional<double> bits_per_byte;  // with token_bytes
  std::vector<double> mtp_acceptance;   // per MTP module: share of its guesses that are the main model's too
  std::optional<double> max_vio;        // of the loads over all rows, mean over MoE layers; none: dense
  int64_t targets = 0;                  // tokens predicted
  int64_t bytes = 0;                    // of their text
};

// Mean loss of the targets at positions [begin, end) of their rows, the first target being at 1.
struct PositionLoss {
  int64_t begin = 0, end = 0;
  double loss = 0;
};

// Adds up over calls. Each row is a sequence of its own.
class TextEvaluation {
 public:
  // max_tokens: the longest row's T. token_bytes: bytes of text of each id, or empty; must outlive this.
  TextEvaluation(Network& network, CacheFormat format, int64_t max_tokens,
                 std::span<const int64_t> token_bytes = {});
  // T + 1 + J tokens: predicts the T after the first. Throws internal if the loss is not finite.
  void add(std::vector<int32_t> row);
  TextScore result();
  // In `parts` ranges of positions, as far as rows went; the last may be shorter.
  std::vector<PositionLoss> by_position(int64_t parts);

 private:
  struct Row {
    std::vector<int32_t> ids;
    std::vector<int32_t> choice, pages;  // [T] the main model's; its pages
    int64_t first = 0;                   // row of the step
    int64_t T = 0;
  };
  void flush();
  void score(Row& row, const std::vector<float>& hidden);
  void guess(int64_t depth, const Row& row, const std::vector<float>& hidden);
  void count_load(int64_t layer);
  const float* logits_of(const std::vector<float>& hidden, int64_t first, int64_t count);

  Network& network_;
  LatentPages pages_;
  std::span<const int64_t> token_bytes_;
  std::vector<Row> rows_;
  int64_t waiting_ = 0, used_pages_ = 0;
  std::vector<float> logits_;
  double loss_ = 0;
  std::vector<double> loss_at_;  // sum over the rows, by position of the input
  std::vector<int64_t> rows_at_;
  int64_t targets_ = 0, bytes_ = 0;
  std::vector<int64_t> agreed_, guessed_;   // per MTP module
  std::vector<std::vector<int64_t>> load_;  // by layer, [E]; empty: dense
};

}  // namespace hadal
