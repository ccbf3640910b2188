// AdamW with bias correction and decoupled decay, the global gradient norm and the balance bias step
// (training spec 3, 6.3).
#pragma once
#include <span>
#include <string>
#include <vector>

#include "hadal/config/train_config.h"
#include "hadal/model/transformer.h"
#include "hadal/train/loss.h"
#include "hadal/train/shard_layout.h"

namespace hadal {

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // on tensors of two or more dimensions; norms do not decay
  double clip = 1.0;          // global L2 norm of the gradient
  bool bf16_moments = false;  // m and v are kept in bf16, rounded to nearest even; computed in fp32
};

AdamWConfig adamw_config(const OptimizerSection& section);

// Which of the ranks that share out the moments and the update this one is (ZeRO-1).
struct OptimizerShare {
  int64_t rank = 0, ranks = 1;
};

// A weight, or the run of its values that this process has, or (cut) its part of a matrix.
struct TrainedWeight {
  std::string name;                                   // of weight_specs()
  Tensor values;                                      // contiguous
  std::vector<int64_t> shape;                         // of the whole
  int64_t begin = 0;                                  // its first value's place in the whole
  int64_t row = 0;                                    // values of an expert, or of the whole
  bool cut = false;                                   // then `begin` is 0
  bool stacked() const { return shape.size() == 3; }  // of experts
};
std::vector<TrainedWeight> trained_weights(Transformer& model);

class AdamW {
 public:
  // Moments of elements [begin, begin + m.numel()) of a weight, by its name of weight_specs(): in the
  // weight's shape if they are all of them, else flat.
  struct Moments {
    std::string name;
    std::vector<int64_t> shape;  // the weight's
    int64_t begin = 0;
    Tensor m, v;
  };

  // Makes the model's weights require gradients (the balance bias does not), and keeps them.
  AdamW(Transformer& model, const AdamWConfig& config, OptimizerShare share = {})
      : AdamW(trained_weights(model), config, share) {}
  // Of some of a model's weights.
  AdamW(std::vector<TrainedWeight> weights, const AdamWConfig& config, OptimizerShare share = {});

  // One update from the accumulated gradients, which are then zeroed; returns the global norm before
  // clipping. A weight without a gradient (an expert that saw no token) has g = 0 and still decays. If the
  // norm is not finite nothing is changed and it is returned as it is. Not with a share of ranks.
  double step(double learning_rate);

  // The same in pieces. One gradient per element of moments(), flat; undefined: none.
  std::vector<double> block_squares(const std::vector<Tensor>& gradients) const;  // of this rank's blocks
  // Of each weight, from those of all ranks, one after the other. `runs`: of so many optimizers in a row that
  // have a run each of the same weights, of equal sizes.
  std::vector<double> tensor_squares(std::span<const double> block_squares, int64_t runs = 1) const;
  void update(double learning_rate, double norm, const std::vector<Tensor>& gradients);

  int64_t num_steps() const { return steps_; }
  void set_num_steps(int64_t steps) { steps_ = steps; }

  // What a checkpoint keeps: with a share of ranks this one's part of it.
  std::vector<Moments>& moments() { return moments_; }
  const ShardLayout& layout() const { return layout_; }
  const std::vector<TrainedWeight>& weights() const { return weights_; }  // those that are trained, in order
  at::ScalarType moment_type() const { return config_.bf16_moments ? at::kBFloat16 : at::kFloat; }

 private:
  bool computes_plainly() const;  // by tensor/tensor_lists.h
  void update_plain(double learning_rate, double scale, const std::vector<Tensor>& gradients);

  AdamWConfig config_;
  std::vector<TrainedWeight> weights_;
  ShardLayout layout_;
  std::vector<Moments> moments_;
  OptimizerShare share_;
  int64_t steps_ = 0;
};

// From the sums of squares of all weights, in their order.
double global_norm(std::span<const double> tensor_squares);

// b_i += gamma * sign(mean(c) - c_i) for each layer's balance bias; sign(0) = 0. Auxiliary-loss-free
// balancing.
void update_balance_bias(Transformer& model, const std::vector<ExpertLoad>& loads, double gamma);

// (max_i c_i - mean) / mean, averaged over layers; 0 is perfect balance.
double max_violation(const std::vector<ExpertLoad>& loads);

}  // namespace hadal
