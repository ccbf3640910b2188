#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "hadal/base/check.h"
#include "hadal/kernels/train.h"
#include "hadal/ops/data.h"
#include "hadal/ops/expert_exchange.h"
#include "hadal/ops/fused.h"
#include "hadal/ops/half.h"
#include "hadal/ops/plain.h"
#include "hadal/ops/product.h"
#include "hadal/ops/weight_gradients.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

// A route among what autograd keeps for the backward pass.
struct KeptRoute : torch::CustomClassHolder {
  explicit KeptRoute(std::shared_ptr<const ExpertRoute> r) : route(std::move(r)) {}
  std::shared_ptr<const ExpertRoute> route;
};

// Weights of experts, perhaps with a leading dimension for senders that all see the same ones.
Tensor of_expert(const Tensor& w, int64_t i) {
  return (w.dim() == 4 ? w.select(0, 0) : w).select(0, i);
}

// V: copies that the experts here work on; Y: of those that were sent, whosever they are; lower-case e:
// experts here.
class Experts : public Function<Experts> {
 public:
  static Tensor forward(AutogradContext* ctx, ExpertExchange* exchange, int64_t E, const Tensor& x_in,
                        const Tensor& expert_TA, const Tensor& weight_in, const Tensor& gate,
                        const Tensor& up, const Tensor& down, bool bf16) {
    const Tensor x_TD = x_in.contiguous(), weight_TA = weight_in.contiguous();
    const int64_t T = x_TD.size(0), D = x_TD.size(1), A = expert_TA.size(1), e = gate.size(-3),
                  M = gate.size(-2);
    const ExpertOrder order = sort_by_expert(expert_TA, E);
    const std::shared_ptr<const ExpertRoute> route = exchange->route(order, weight_TA);
    const Tensor sent_YD = route->dispatch(x_TD), copy_VD = rows_at(sent_YD, route->row_V);
    const int64_t V = copy_VD.size(0);
    const Tensor gate_VM = at::empty({V, M}, x_TD.options()), up_VM = at::empty({V, M}, x_TD.options());
    const Tensor hidden_VM = at::empty({V, M}, x_TD.options()), out_VD = at::empty({V, D}, x_TD.options());
    const TrainKernels& k = train_kernels();
    for_each_expert(route->begin, [&](int64_t group, int64_t begin, int64_t n) {
      const int64_t i = group % e;
      const Tensor x = copy_VD.narrow(0, begin, n);
      multiply(gate_VM.narrow(0, begin, n), x, of_expert(gate, i).t(), bf16);
      multiply(up_VM.narrow(0, begin, n), x, of_expert(up, i).t(), bf16);
      k.swiglu(floats(gate_VM) + begin * M, floats(up_VM) + begin * M, floats(hidden_VM) + begin * M, n * M);
      multiply(out_VD.narrow(0, begin, n), hidden_VM.narrow(0, begin, n), of_expert(down, i).t(), bf16);
    });
    const Tensor out_UD = route->combine({out_VD})[0];
    const Tensor y_TD = at::empty({T, D}, x_TD.options());
    parallel_for(T, grain(A * D), [&](int64_t b, int64_t end) {
      k.combine(floats(out_UD), longs(order.place_U) + b * A, floats(weight_TA) + b * A, floats(y_TD) + b * D,
                end - b, A, D);
    });
    ctx->save_for_backward({sent_YD, gate, up, down, gate_VM, up_VM, order.place_U});
    ctx->saved_data["route"] = c10::IValue::make_capsule(c10::make_intrusive<KeptRoute>(route));
    ctx->saved_data["bf16"] = bf16;
    ctx->saved_data["shape"] = std::vector<int64_t>{T, A};
    return y_TD;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const Tensor &sent_YD = saved[0], &gate = saved[1], &up = saved[2], &down = saved[3];
    const Tensor &gate_VM = saved[4], &up_VM = saved[5], &place_U = saved[6];
    const auto kept = c10::static_intrusive_pointer_cast<KeptRoute>(ctx->saved_data["route"].toCapsule());
    const ExpertRoute& route = *kept->route;
    const bool bf16 = ctx->saved_data["bf16"].toBool();
    const std::vector<int64_t> shape = ctx->saved_data["shape"].toIntVector();
    const int64_t T = shape[0], A = shape[1], D = sent_YD.size(1), e = gate.size(-3), M = gate.size(-2);
    const Tensor copy_VD = rows_at(sent_YD, route.row_V),
                 dout_VD = rows_at(route.dispatch(grads[0].contiguous()), route.row_V);
    const Tensor hidden_VM = at::empty_like(gate_VM), dhidden_VM = at::empty_like(gate_VM);
    const Tensor dgate_VM = at::empty_like(gate_VM), dup_VM = at::empty_like(gate_VM),
                 dcopy_VD = at::empty_like(copy_VD),
                 dweight_VX = at::empty({copy_VD.size(0), 1}, copy_VD.options());
    const TrainKernels& k = train_kernels();
    for_each_expert(route.begin, [&](int64_t group, int64_t begin, int64_t n) {
      const int64_t i = group % e;
      // Unweighted first: the gate weight's gradient is the product of this with the hidden row.
      const Tensor dout = dout_VD.narrow(0, begin, n), dcopy = dcopy_VD.narrow(0, begin, n);
      multiply(dhidden_VM.narrow(0, begin, n), dout, of_expert(down, i), bf16);
      for (int64_t row = begin; row < begin + n; ++row) {
        const int64_t at = row * M;
        float *h = floats(hidden_VM) + at, *dh = floats(dhidden_VM) + at;
        const float weight = floats(route.weight_V)[row];
        k.swiglu(floats(gate_VM) + at, floats(up_VM) + at, h, M);
        k.row_dot(dh, M, h, M, floats(dweight_VX) + row, 1, M);
        for (int64_t m = 0; m < M; ++m) h[m] *= weight, dh[m] *= weight;
        k.swiglu_backward(dh, floats(gate_VM) + at, floats(up_VM) + at, floats(dgate_VM) + at,
                          floats(dup_VM) + at, M);
      }
      multiply(dcopy, dgate_VM.narrow(0, begin, n), of_expert(gate, i), bf16);
      multiply(dcopy, dup_VM.narrow(0, begin, n), of_expert(up, i), bf16, /*adds=*/true);
    });
    const Tensors back = route.combine({dcopy_VD, dweight_VX});
    const Tensor dx_TD = at::empty({T, D}, copy_VD.options()),
                 dweight_TA = at::empty({T, A}, copy_VD.options());
    parallel_for(T, grain(A * D), [&](int64_t b, int64_t end) {
      k.sum_rows(floats(back[0]), longs(place_U) + b * A, floats(dx_TD) + b * D, end - b, A, D);
      for (int64_t c = b * A; c < end * A; ++c) floats(dweight_TA)[c] = floats(back[1])[longs(place_U)[c]];
    });
    const auto of_matrices = [gate, up, down, begin = route.begin, dgate_VM, dup_VM, hidden_VM, copy_VD,
                              dout_VD, bf16] {
      const MatrixGradients gradients(gate, up, down, begin);
      for_each_expert(begin, [&](int64_t group, int64_t first, int64_t n) {
        const auto part = [&](const Tensor& x) { return x.narrow(0, first, n); };
        multiply(gradients.down.select(0, group), part(dout_VD).t(), part(hidden_VM), bf16);
        multiply(gradients.gate.select(0, group), part(dgate_VM).t(), part(copy_VD), bf16);
        multiply(gradients.up.select(0, group), part(dup_VM).t(), part(copy_VD), bf16);
      });
      return Tensors{gradients.gate.view(gate.sizes()), gradients.up.view(up.sizes()),
                     gradients.down.view(down.sizes())};
    };
    Tensors d(3);
    WeightGradients* later = WeightGradients::active();
    if (later && gate.is_leaf()) {
      later->add([gate, up, down, of_matrices] {
        const Tensors put_off = of_matrices();
        add_gradient(gate, put_off[0]), add_gradient(up, put_off[1]), add_gradient(down, put_off[2]);
      });
    } else {
      d = of_matrices();
    }
    const Tensor none;
    return {none, none, dx_TD, none, dweight_TA, d[0], d[1], d[2], none};
  }

 private:
  // One matrix for each sender and expert: zeros where there are no rows.
  struct MatrixGradients {
    Tensor gate, up, down;
    MatrixGradients(const Tensor& w_gate, const Tensor& w_up, const Tensor& w_down,
                    const std::vector<int64_t>& begin) {
      const auto groups = static_cast<int64_t>(begin.size()) - 1, e = w_gate.size(-3);
      HADAL_CHECK(groups == (w_gate.dim() == 4 ? w_gate.size(0) * e : e)) << "gradients of senders would mix";
      const auto space = [&](const Tensor& w) {
        return at::empty({groups, w.size(-2), w.size(-1)}, w.options());
      };
      gate = space(w_gate), up = space(w_up), down = space(w_down);
      for (int64_t g = 0; g < groups; ++g)
        if (begin[static_cast<size_t>(g)] == begin[static_cast<size_t>(g + 1)])
          for (const Tensor* gradient : {&gate, &up, &down}) gradient->select(0, g).zero_();
    }
  };
};

}  // namespace

Tensor exchanged_experts(ExpertExchange& exchange, int64_t E, const Tensor& x_TD, const Tensor& expert_TA,
                         const Tensor& weight_TA, const ExpertMatrices& w) {
  return Experts::apply(&exchange, E, x_TD, expert_TA, weight_TA, w.gate_eMD, w.up_eMD, w.down_eDM, false);
}

Tensor fused_experts(const Tensor& x_TD, const Tensor& expert_TA, const Tensor& weight_TA,
                     const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM,
                     Products products) {
  if (is_plain(x_TD)) return plain_experts(x_TD, expert_TA, weight_TA, gate_EMD, up_EMD, down_EDM, products);
  if (const auto format = half_format(products, x_TD))
    return half_experts(*format, x_TD, expert_TA, weight_TA, gate_EMD, up_EMD, down_EDM);
  LocalExperts local;
  return Experts::apply(&local, gate_EMD.size(0), x_TD, expert_TA, weight_TA, gate_EMD, up_EMD, down_EDM,
                        products == Products::kBf16);
}

}  // namespace hadal
