#include "hadal/train/gemm_peak.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "hadal/ops/product.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"

namespace hadal {

namespace {

// Runs `product` a few times; the best of flops / seconds.
double best_rate(double flops, at::Device device, const std::function<void()>& product) {
  double best = 0;
  for (int i = 0; i < 6; ++i) {
    synchronize(device);
    const auto start = std::chrono::steady_clock::now();
    product();
    synchronize(device);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, flops / seconds);
  }
  return best;
}

}  // namespace

double gemm_peak(int64_t n, at::ScalarType dtype, at::Device device) {
  NoGrad no_grad;
  const Tensor a = on_device(full({n, n}, 0.5, dtype), device),
               b = on_device(full({n, n}, 0.25, dtype), device);
  const double flops = 2.0 * static_cast<double>(n * n * n);
  if (!device.is_cpu() || dtype != at::kFloat) return best_rate(flops, device, [&] { a.matmul(b); });
  std::vector<Tensor> c;  // a product for each thread, as the workers of a step have
  for (int i = 0; i < num_threads(); ++i) c.push_back(empty({n, n}, dtype));
  return best_rate(flops * static_cast<double>(c.size()), device, [&] {
    std::vector<std::thread> threads;
    for (const Tensor& mine : c) threads.emplace_back([&, mine] { multiply(mine, a, b, /*bf16=*/false); });
    for (std::thread& thread : threads) thread.join();
  });
}

}  // namespace hadal
