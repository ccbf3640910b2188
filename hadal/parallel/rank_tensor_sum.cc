#include "hadal/parallel/rank_tensor_sum.h"

#include "hadal/base/check.h"

namespace hadal {

void RankTensorSum::add_up(const Tensor& x) {
  HADAL_CHECK(x.is_contiguous() && x.scalar_type() == at::kFloat);
  all_reduce(comm_, {static_cast<float*>(x.data_ptr()), static_cast<size_t>(x.numel())});
}

}  // namespace hadal
