#include "hadal/train/gemm_peak.h"

#include <algorithm>
#include <chrono>

#include "hadal/tensor/make.h"

namespace hadal {

double gemm_peak(int64_t n, at::ScalarType dtype) {
  NoGrad no_grad;
  const Tensor a = full({n, n}, 0.5, dtype), b = full({n, n}, 0.25, dtype);
  double best = 0;
  for (int i = 0; i < 6; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const Tensor c = a.matmul(b);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2.0 * static_cast<double>(n * n * n) / seconds);
  }
  return best;
}

}  // namespace hadal
