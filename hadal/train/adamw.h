// AdamW with bias correction and decoupled decay, the global gradient norm and the balance bias step
// (training spec 3, 6.3).
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "hadal/model/transformer.h"
#include "hadal/train/loss.h"

namespace hadal {

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // on tensors of two or more dimensions; norms do not decay
  double clip = 1.0;          // global L2 norm of the gradient
  bool bf16_moments = false;  // m and v are kept in bf16, rounded to nearest even; computed in fp32
};

class AdamW {
 public:
  // Makes the model's weights require gradients (the balance bias does not). The model must outlive this.
  AdamW(Transformer& model, const AdamWConfig& config);

  // One update from the accumulated gradients, which are then zeroed; returns the global norm before
  // clipping. A weight without a gradient (an expert that saw no token) has g = 0 and still decays. If the
  // norm is not finite nothing is changed and it is returned as it is.
  double step(double learning_rate);

  int64_t num_steps() const { return steps_; }
  void set_num_steps(int64_t steps) { steps_ = steps; }

  // Calls f(name, m, v) for each trained weight, by its name of weight_specs(): what a checkpoint keeps.
  using MomentVisitor = std::function<void(const std::string&, Tensor& m, Tensor& v)>;
  void for_each_moment(const MomentVisitor& f) {
    for (Slot& slot : slots_) f(slot.name, slot.m, slot.v);
  }

 private:
  struct Slot {
    std::string name;
    Tensor weight, m, v;
    bool decays = false;
  };
  AdamWConfig config_;
  std::vector<Slot> slots_;
  int64_t steps_ = 0;
};

// b_i += gamma * sign(mean(c) - c_i) for each layer's balance bias; sign(0) = 0. Auxiliary-loss-free
// balancing.
void update_balance_bias(Transformer& model, const std::vector<ExpertLoad>& loads, double gamma);

// (max_i c_i - mean) / mean, averaged over layers; 0 is perfect balance.
double max_violation(const std::vector<ExpertLoad>& loads);

}  // namespace hadal
