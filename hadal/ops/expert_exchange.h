// How tokens reach the experts they chose, wherever these are: the one thing that fused_experts() does not do
// itself. Here are the experts of one process; hadal/parallel has those spread over ranks. fp32 rows.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "hadal/ops/expert_order.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

// The ways of one call's rows, kept from the forward to the backward pass: the gradients of what was combined
// are dispatched, those of what was dispatched combined.
class ExpertRoute {
 public:
  virtual ~ExpertRoute() = default;
  // The copies that the experts here work on, by sender, then expert, then token; each sender's are what one
  // process would compute in one call. Copy v is of row row_V[v] of those dispatched and has weight_V[v].
  Tensor row_V, weight_V;      // int64, fp32
  std::vector<int64_t> begin;  // first copy of expert i for sender s at [s * e + i], and the end
  // Rows of this process's tokens, [T, Y]; returns those that experts here were chosen for, by sender.
  virtual Tensor dispatch(const Tensor& row_TY) const = 0;
  // From every copy's rows [V, Y] to those of this process's U copies, [U, Y] in the order of
  // sort_by_expert().
  virtual std::vector<Tensor> combine(const std::vector<Tensor>& rows) const = 0;
};

class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;
  // Of one call: its tokens' copies and weights. All ranks that share the experts out call it together, and
  // so all members of what it returns, if need be with no tokens.
  virtual std::shared_ptr<const ExpertRoute> route(const ExpertOrder& order, const Tensor& weight_TA) = 0;
};

// All experts are in this process: nothing moves.
class LocalExperts : public ExpertExchange {
 public:
  std::shared_ptr<const ExpertRoute> route(const ExpertOrder& order, const Tensor& weight_TA) override;
};

}  // namespace hadal
