// Tokens' copies sorted by expert, for the expert GEMMs in either precision.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "hadal/tensor/tensor.h"

namespace hadal {

// Where each token's copies stand once they are sorted by expert.
struct ExpertOrder {
  Tensor token_U;                // token of each sorted row
  Tensor place_U;                // sorted row of copy t*A + a
  std::vector<int64_t> begin_E;  // first row of each expert, and the end
};
ExpertOrder sort_by_expert(const Tensor& expert_TA, int64_t E);

// Runs body(expert, first row, rows) for every expert with rows, whole experts side by side, the largest
// first. Each is computed by one thread, so nothing depends on how many there are.
void for_each_expert(const std::vector<int64_t>& begin_E,
                     const std::function<void(int64_t, int64_t, int64_t)>& body);

// Copies of each expert, int64 [E]; the device is not waited for.
Tensor expert_counts(const Tensor& expert_TA, int64_t E);

// Copy t*A + a that each sorted row holds.
std::vector<int64_t> copy_of_row(const Tensor& place_U);
// Rows of x_XY, one for each index in row_U, int64; contiguous, of any dtype. -> [U, Y]
Tensor rows_at(const Tensor& x_XY, const Tensor& row_U);
// The gate's weight of each sorted row, fp32.
Tensor weight_by_row(const ExpertOrder& order, const Tensor& weight_TA);

}  // namespace hadal
