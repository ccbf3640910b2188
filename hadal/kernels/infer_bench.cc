// The inference kernels against this machine's read bandwidth and fused multiply-add rate, both measured
// between them: best of many short runs, one thread. The last line is one JSON object. Usage: infer_bench
// [seconds a case]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "hadal/base/aligned_buffer.h"
#include "hadal/kernels/infer_cases.h"

namespace hadal {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds_a_case = 0.05;

template <class F>
double best_seconds(F&& f) {
  f();
  double best = 1e9;
  for (const double end = now() + seconds_a_case; now() < end;) {
    const double start = now();
    f();
    best = std::min(best, now() - start);
  }
  return best;
}

// GFLOP/s of weighted rows in the L1 cache, whose sums stay in registers throughout: the rate of the units,
// nearly.
double fma_peak(const InferKernels& kernels) {
  constexpr int64_t M = 6, L = 128, C = 64;
  AlignedBuffer<float> p, v, y;
  std::fill_n(p.ensure(M * L), M * L, 0.5f);
  std::fill_n(v.ensure(L * C), L * C, 0.25f);
  y.ensure(M * C);
  const double s = best_seconds([&] {
    for (int i = 0; i < 100; ++i)
      kernels.weighted_rows(p.data(), L, v.data(), C, M, L, C, y.data(), C, false);
  });
  return 100 * 2.0 * M * L * C / s * 1e-9;
}

// GB/s of sums over pieces of memory beyond the caches' reach: the best piece, as others use the machine too.
double read_bandwidth() {
  constexpr size_t kPiece = 1 << 20;  // of 8 bytes
  static const std::vector<uint64_t> all(48 * kPiece, 1);
  volatile uint64_t sink = 0;
  double best = 1e9;
  for (size_t at = 0; at < all.size(); at += kPiece) {
    const double start = now();
    uint64_t sum[8] = {};
    for (size_t i = at; i < at + kPiece; i += 8) {
      __builtin_prefetch(&all[i] + 512);
      for (size_t j = 0; j < 8; ++j) sum[j] += all[i + j];
    }
    for (const uint64_t part : sum) sink = sink + part;
    best = std::min(best, now() - start);
  }
  return kPiece * 8 / best * 1e-9;
}

struct Shape {
  int64_t N, K;
};

void bench_products(const InferKernels& kernels, double peak, std::string& json) {
  constexpr Shape kShapes[] = {{384, 768}, {1152, 384}, {288, 768},  {768, 768},
                               {64, 64},   {768, 256},  {768, 2048}, {32768, 768}};
  constexpr int64_t kInputs[] = {1, 8, 32, 128, 512};
  std::printf("%-6s %12s | M=1 GB/s | GFLOP/s of %.0f (%% of it) for M =", "format", "N x K", peak);
  for (const int64_t M : kInputs) std::printf(" %13ld", M);
  std::printf("   64 gathered\n");
  for (const WeightFormat format : kAllFormats)
    for (const Shape shape : kShapes) {
      if (shape.N > 10000 && format == WeightFormat::kF32) continue;
      const StoredMatrix w(format, shape.N, shape.K);
      const PreparedInputs in(kernels, format, 512, shape.K);
      std::vector<float> y(static_cast<size_t>(512 * shape.N));
      std::vector<int32_t> index;
      for (int32_t i = 0; i < 64; ++i) index.push_back(i * 37 % 512);
      const auto rate = [&](int64_t M, const int32_t* rows) {
        const double s = best_seconds([&] {
          kernels.dot_rows(w.view, in.rows.data(), rows, M, y.data(), shape.N, 0, shape.N, in.scratch.data());
        });
        return 2.0 * static_cast<double>(M * shape.N * shape.K) / s * 1e-9;
      };
      const double bytes = static_cast<double>(w.data.size() + w.scale.size());
      const double decode = rate(1, nullptr);
      const double bandwidth = decode * bytes / (2.0 * static_cast<double>(shape.N * shape.K));
      std::printf("%-6s %5ld x %4ld | %8.1f |                                  ", name(format), shape.N,
                  shape.K, bandwidth);
      json += (json.empty() ? "" : ", ") + std::string("{\"format\": \"") + name(format) +
              "\", \"N\": " + std::to_string(shape.N) + ", \"K\": " + std::to_string(shape.K) +
              ", \"decode_gbs\": " + std::to_string(bandwidth) + ", \"gflops\": [";
      for (const int64_t M : kInputs) {
        if (M > 32 && shape.N > 10000) continue;
        const double gflops = M == 1 ? decode : rate(M, nullptr);
        std::printf(" %6.0f (%3.0f%%)", gflops, 100 * gflops / peak);
        json += (M == 1 ? "" : ", ") + std::to_string(gflops);
      }
      json += "]}";
      std::printf(" %6.0f (%3.0f%%)\n", rate(64, index.data()), 100 * rate(64, index.data()) / peak);
      std::fflush(stdout);
    }
}

void bench_weighted(const InferKernels& kernels, double peak) {
  for (const int64_t C : {256, 512})
    for (const int64_t M : {1, 12, 16, 64, 192}) {
      constexpr int64_t L = 256;
      AlignedBuffer<float> p, v, y;
      std::fill_n(p.ensure(M * L), M * L, 0.5f);
      std::fill_n(v.ensure(L * (C + 32)), L * (C + 32), 0.25f);
      y.ensure(M * C);
      const double s = best_seconds(
          [&] { kernels.weighted_rows(p.data(), L, v.data(), C + 32, M, L, C, y.data(), C, false); });
      const double gflops = 2.0 * static_cast<double>(M * L * C) / s * 1e-9;
      std::printf("weighted_rows M %3ld L %ld C %ld: %6.1f GFLOP/s (%3.0f%%)\n", M, L, C, gflops,
                  100 * gflops / peak);
    }
}

void bench_softmax(const InferKernels& kernels) {
  std::vector<float> score(192 * 256), max(192), sum(192);
  const std::vector<int64_t> visible(192, 250);
  for (size_t i = 0; i < score.size(); ++i) score[i] = drawn(1, static_cast<int64_t>(i));
  const double s = best_seconds([&] {
    kernels.softmax_rows(score.data(), 256, visible.data(), 0.1f, 192, 256, max.data(), sum.data());
  });
  std::printf("softmax_rows 192 x 256: %.2f G values/s\n", 192 * 256 / s * 1e-9);
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) {
  using namespace hadal;
  if (argc > 1) seconds_a_case = std::atof(argv[1]);
  const InferKernels& kernels = infer_kernels();
  const double peak = fma_peak(kernels), bandwidth = read_bandwidth();
  std::printf("isa %s, one thread: %.1f GFLOP/s FMA, %.1f GB/s reads\n", kernels.isa, peak, bandwidth);
  std::string json;
  bench_products(kernels, peak, json);
  bench_weighted(kernels, peak);
  bench_softmax(kernels);
  std::printf("{\"isa\": \"%s\", \"peak_gflops\": %.1f, \"read_gbs\": %.1f, \"products\": [%s]}\n",
              kernels.isa, peak, bandwidth, json.c_str());
}
