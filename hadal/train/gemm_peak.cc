#include "hadal/train/gemm_peak.h"

#include <algorithm>
#include <chrono>

#include "hadal/ops/product.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"

namespace hadal {

double gemm_peak(int64_t n, at::ScalarType dtype, at::Device device) {
  NoGrad no_grad;
  const Tensor a = on_device(full({n, n}, 0.5, dtype), device),
               b = on_device(full({n, n}, 0.25, dtype), device);
  const bool ours = device.is_cpu() && dtype == at::kFloat;
  Tensor c = ours ? empty({n, n}, dtype) : Tensor();
  double best = 0;
  for (int i = 0; i < 6; ++i) {
    synchronize(device);
    const auto start = std::chrono::steady_clock::now();
    ours ? multiply(c, a, b, /*bf16=*/false) : void(c = a.matmul(b));
    synchronize(device);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2.0 * static_cast<double>(n * n * n) / seconds);
  }
  return best;
}

}  // namespace hadal
