// How a training pass of the network computes. The default is the plain fp32 pass.
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "hadal/config/recompute.h"
#include "hadal/ops/fp8.h"
#include "hadal/ops/linear.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

class ExpertExchange;
class TensorSum;
struct Routing;

struct TrainingPass {
  Tensor segment_start_BS;             // int64, first position each token sees, its document's; undefined: 0
  Products products = Products::kF32;  // gate, norms, RoPE, softmax and loss stay in fp32
  // Products of the layers' matrices (WeightRole::kMatrix) in FP8; `products` are then the others: attention,
  // head, MTP's projection.
  std::optional<Fp8Recipe> fp8;
  Recompute recompute = Recompute::kNone;
  // Experts to take instead of choosing, int64 [T, A] by index of the layer; undefined or none: chosen anew.
  std::vector<Tensor> chosen_TA;
  // Which (token, slot) pairs a MoE layer computes, bool [T, A] (V2's token dropping); empty: all.
  std::function<Tensor(const Routing&)> kept_slots;
  // Where the experts are whose weights this process does not have; null: it has all. With kF32 only.
  ExpertExchange* exchange = nullptr;
  // Over the ranks that have the other heads and columns of MLPs; null: all are here. With kF32 only.
  TensorSum* tensor_sum = nullptr;
};

// x w^T, w a matrix of a layer.
inline Tensor project(const TrainingPass& pass, const Tensor& x, const Tensor& w,
                      Fp8Input input = Fp8Input::kPlain) {
  return pass.fp8 ? fp8_linear(*pass.fp8, input, x, w) : linear(x, w, pass.products);
}

}  // namespace hadal
