// The experts of each layer spread over ranks: rank r of n has experts [r E/n, (r+1) E/n). Tokens go where
// the gate sends them and come back (training spec 11.1).
//
// A token's row goes to a rank once, however many of its experts are there; so to as many ranks at most as
// the gate's groups allow, where a rank has whole groups. Back comes a row for each copy: they are added at
// home in ascending order of the experts, as in one process, so nothing depends on who has which experts.
#pragma once
#include "hadal/ops/expert_exchange.h"
#include "hadal/parallel/comm.h"

namespace hadal {

class ExpertAllToAll : public ExpertExchange {
 public:
  explicit ExpertAllToAll(Comm& comm) : comm_(comm) {}
  // The number of experts must be a multiple of the ranks.
  std::shared_ptr<const ExpertRoute> route(const ExpertOrder& order, const Tensor& weight_TA) override;

 private:
  Comm& comm_;
};

}  // namespace hadal
