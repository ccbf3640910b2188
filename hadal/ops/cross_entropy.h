#pragma once
#include "hadal/tensor/fwd.h"

namespace hadal {

// -log softmax(logit)[target] of each row, in fp32. Rows whose target is negative give 0 and no gradient.
// logit_TW, target_T int64 -> [T] fp32. Holds one T x W copy.
Tensor cross_entropy(const Tensor& logit_TW, const Tensor& target_T);

}  // namespace hadal
