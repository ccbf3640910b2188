// Inputs for the tests and the benchmark of the inference kernels: matrices in every format, at the very end
// of mapped memory.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "hadal/base/check.h"
#include "hadal/base/number_formats.h"
#include "hadal/kernels/infer.h"

namespace hadal {

constexpr WeightFormat kAllFormats[] = {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kFp8,
                                        WeightFormat::kInt8, WeightFormat::kInt4};
constexpr const char* kFormatNames[] = {"f32", "bf16", "fp8", "int8", "int4"};
inline const char* name(WeightFormat format) {
  return kFormatNames[static_cast<int>(format)];
}

// n bytes that end where readable memory ends, so that any access beyond is a fault; 64 guard bytes before.
class EdgeBytes {
 public:
  explicit EdgeBytes(int64_t n, int64_t room_behind = 0) : n_(n) {
    const int64_t used = n + kGuards + room_behind;
    size_ = (used + kPage - 1) / kPage * kPage + kPage;
    base_ = static_cast<uint8_t*>(mmap(nullptr, static_cast<size_t>(size_), PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    HADAL_CHECK(base_ != MAP_FAILED) << "mmap of " << size_;
    HADAL_CHECK(mprotect(base_ + size_ - kPage, static_cast<size_t>(kPage), PROT_NONE) == 0) << "mprotect";
    data_ = base_ + size_ - kPage - room_behind - n;
    std::memset(base_, kFill, static_cast<size_t>(size_ - kPage));
  }
  EdgeBytes(const EdgeBytes&) = delete;
  EdgeBytes& operator=(const EdgeBytes&) = delete;
  ~EdgeBytes() { munmap(base_, static_cast<size_t>(size_)); }
  uint8_t* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  int64_t size() const { return n_; }
  bool guards_hold() const {
    const auto untouched = [](uint8_t byte) { return byte == kFill; };
    return std::all_of(data_ - kGuards, data_, untouched) &&
           std::all_of(data_ + n_, base_ + size_ - kPage, untouched);
  }

 private:
  static constexpr int64_t kPage = 65536, kGuards = 64;
  static constexpr uint8_t kFill = 0xA5;
  int64_t n_, size_ = 0;
  uint8_t *base_ = nullptr, *data_ = nullptr;
};

// Element i of a stream of random bits (splitmix64), and of floats in [-2, 2).
inline uint64_t random_bits(uint64_t stream, int64_t i) {
  uint64_t z = (stream << 40) + static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}
inline float drawn(uint64_t stream, int64_t i) {
  return static_cast<float>(static_cast<int64_t>(random_bits(stream, i) >> 40) - (1 << 23)) * 0x1p-22f;
}

// A random matrix as stored and its values.
struct StoredMatrix {
  // first_row: where its rows lie in a larger FP8 matrix. misplaced: bytes between its end and the edge.
  StoredMatrix(WeightFormat format, int64_t N, int64_t K, int64_t first_row = 0, int64_t misplaced = 0)
      : padded(padded_columns(K)),
        data(N * row_bytes(format, K), misplaced),
        scale(scale_bytes(format, N, K, first_row), misplaced % 3),
        value(static_cast<size_t>(N * K)) {
    view = {format, N, K, data.data(), scale.data(), first_row};
    for (int64_t i = 0; i < data.size(); ++i) data.data()[i] = static_cast<uint8_t>(random_bits(5, i));
    fill_scales();
    for (int64_t n = 0; n < N; ++n)
      for (int64_t k = 0; k < K; ++k) value[static_cast<size_t>(n * K + k)] = draw(n, k);
    clear_padding();
  }
  float at(int64_t n, int64_t k) const { return value[static_cast<size_t>(n * view.K + k)]; }
  // INT8, INT4: code and scale, whose product is the value.
  int code(int64_t n, int64_t k) const {
    const uint8_t* row = data.data() + n * row_bytes(view.format, view.K);
    if (view.format == WeightFormat::kInt8) return row[k] - 128;
    const uint8_t pair = row[k / 128 * 64 + k % 64];
    return (k & 64 ? pair >> 4 : pair & 15) - 8;
  }
  float group_scale(int64_t n, int64_t k) const {
    const int64_t group = view.format == WeightFormat::kInt8 ? kInt8Group : kInt4Group;
    uint16_t half;
    std::memcpy(&half, scale.data() + (n * (padded / group) + k / group) * 2, 2);
    return bf16_to_f32(half);
  }

  int64_t padded;
  EdgeBytes data, scale;
  std::vector<float> value;  // [N, K]
  WeightView view;

 private:
  static int64_t scale_bytes(WeightFormat format, int64_t N, int64_t K, int64_t first_row) {
    const int64_t blocks = (K + 127) / 128;
    if (format == WeightFormat::kFp8) return ((first_row + N - 1) / 128 + 1) * blocks * 4;
    return format == WeightFormat::kInt8   ? N * blocks * 2
           : format == WeightFormat::kInt4 ? N * blocks * 4
                                           : 0;
  }
  void fill_scales() {
    for (int64_t i = 0; i < scale.size() / 2; ++i) {
      const float s = 0.01f * (1.0f + static_cast<float>(i % 7)) * (i % 5 == 0 ? -1.0f : 1.0f);
      const uint16_t half = f32_to_bf16(s);
      std::memcpy(scale.data() + 2 * i, &half, 2);
    }
    if (view.format == WeightFormat::kFp8)
      for (int64_t i = 0; i < scale.size() / 4; ++i) {
        const float s = 0.01f * (1.1f + static_cast<float>(i % 7));
        std::memcpy(scale.data() + 4 * i, &s, 4);
      }
  }
  float draw(int64_t n, int64_t k) {
    const int64_t i = n * view.K + k;
    switch (view.format) {
      case WeightFormat::kF32: {
        const float x = drawn(3, i);
        std::memcpy(data.data() + 4 * i, &x, 4);
        return x;
      }
      case WeightFormat::kBF16: {
        const uint16_t half = f32_to_bf16(drawn(3, i));
        std::memcpy(data.data() + 2 * i, &half, 2);
        return bf16_to_f32(half);
      }
      case WeightFormat::kFp8: {
        uint8_t& code = data.data()[i];
        if ((code & 0x7F) == 0x7F) code ^= 1;  // not a number
        float s;
        std::memcpy(&s, scale.data() + ((view.first_row + n) / 128 * ((view.K + 127) / 128) + k / 128) * 4,
                    4);
        return e4m3_to_f32(code) * s;
      }
      case WeightFormat::kInt8: {
        uint8_t& byte = data.data()[n * padded + k];
        if (byte == 0) byte = 1;
        break;
      }
      case WeightFormat::kInt4:
        break;
    }
    return static_cast<float>(code(n, k)) * group_scale(n, k);
  }
  void clear_padding() {
    for (int64_t n = 0; n < view.N; ++n)
      for (int64_t k = view.K; k < padded; ++k) {
        uint8_t* row = data.data() + n * row_bytes(view.format, view.K);
        if (view.format == WeightFormat::kInt8) row[k] = 128;
        if (view.format != WeightFormat::kInt4) continue;
        uint8_t& pair = row[k / 128 * 64 + k % 64];
        pair = static_cast<uint8_t>(k & 64 ? (pair & 15) | 0x80 : (pair & 0xF0) | 8);
      }
  }
};

// What one product needs besides the matrix. x [M, K] rows K + 1 apart; prepared at a multiple of 64.
struct PreparedInputs {
  PreparedInputs(const InferKernels& kernels, WeightFormat format, int64_t M, int64_t K)
      : M(M),
        K(K),
        x(static_cast<size_t>(M * (K + 1))),
        bytes(kernels.prepared_bytes(format, K)),
        rows(M * bytes),
        scratch(kernels.dot_scratch_bytes(K)) {
    for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i) x[static_cast<size_t>(i)] = drawn(4, i);
    kernels.prepare_rows(format, x.data(), K + 1, M, K, rows.data());
  }
  float at(int64_t m, int64_t k) const { return x[static_cast<size_t>(m * (K + 1) + k)]; }

  int64_t M, K;
  std::vector<float> x;
  int64_t bytes;
  EdgeBytes rows, scratch;
};

}  // namespace hadal
