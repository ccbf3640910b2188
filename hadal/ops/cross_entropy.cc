#include "hadal/ops/cross_entropy.h"

#include "hadal/tensor/shape.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

Tensor cross_entropy(const Tensor& logit_TW, const Tensor& target_T) {
  const int64_t T = logit_TW.size(0);
  HADAL_SHAPE(target_T, T);
  const Tensor valid_T = target_T.ge(0);
  const Tensor log_prob_TW = logit_TW.to(at::kFloat).log_softmax(-1);
  const Tensor picked_T = log_prob_TW.gather(1, target_T.clamp_min(0).unsqueeze(1)).squeeze(1);
  return -(picked_T * valid_T);
}

}  // namespace hadal
