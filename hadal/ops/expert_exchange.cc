#include "hadal/ops/expert_exchange.h"

#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

class LocalRoute : public ExpertRoute {
 public:
  Tensor dispatch(const Tensor& row_TY) const override { return row_TY; }
  std::vector<Tensor> combine(const std::vector<Tensor>& rows) const override { return rows; }
};

}  // namespace

std::shared_ptr<const ExpertRoute> LocalExperts::route(const ExpertOrder& order, const Tensor& weight_TA) {
  const int64_t T = weight_TA.size(0), A = weight_TA.size(1);
  HADAL_SHAPE(weight_TA, T, A);
  auto route = std::make_shared<LocalRoute>();
  route->row_V = order.token_U;
  route->weight_V = weight_by_row(order, weight_TA);
  route->begin = order.begin_E;
  return route;
}

}  // namespace hadal
