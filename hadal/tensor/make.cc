#include "hadal/tensor/make.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/headeronly/version.h>

#include <malloc.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <fstream>

namespace hadal {
namespace {

template <class T>
Tensor copied(std::span<const T> values, at::ScalarType dtype) {
  Tensor out = at::empty({static_cast<int64_t>(values.size())}, dtype);
  if (!values.empty()) std::memcpy(out.data_ptr(), values.data(), values.size_bytes());
  return out;
}

template <class T>
std::vector<T> flattened(const Tensor& x, at::ScalarType dtype) {
  const Tensor flat = x.detach().to(dtype).cpu().contiguous();
  const T* data = static_cast<const T*>(flat.data_ptr());
  return {data, data + flat.numel()};
}

}  // namespace

Tensor empty(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::empty(shape, dtype);
}
Tensor zeros(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::zeros(shape, dtype);
}
Tensor full(at::IntArrayRef shape, double value, at::ScalarType dtype) {
  return at::full(shape, value, dtype);
}
Tensor arange(int64_t begin, int64_t end) {
  return at::arange(begin, end, at::kLong);
}
Tensor concat(const std::vector<Tensor>& parts, int64_t dim) {
  return at::cat(parts, dim);
}
Tensor stack(const std::vector<Tensor>& parts, int64_t dim) {
  return at::stack(parts, dim);
}
Tensor silu(const Tensor& x) {
  return at::silu(x);
}

Tensor from_ids(std::span<const int32_t> ids) {
  return copied(ids, at::kInt).to(at::kLong);
}
Tensor from_ints(std::span<const int64_t> values) {
  return copied(values, at::kLong);
}
Tensor from_floats(std::span<const float> values) {
  return copied(values, at::kFloat);
}
std::vector<float> to_floats(const Tensor& x) {
  return flattened<float>(x, at::kFloat);
}
std::vector<int64_t> to_ints(const Tensor& x) {
  return flattened<int64_t>(x, at::kLong);
}

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  at::parallel_for(0, n, grain, body);
}

void set_num_threads(int threads) {
  at::set_num_threads(threads);
}
int num_threads() {
  return at::get_num_threads();
}
void keep_freed_memory() {
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, INT_MAX);
  // A thread's own arena is of pieces of 64 MiB, which go back to the kernel when they are empty.
  ::mallopt(M_ARENA_MAX, 1);
}

void return_freed_memory() {
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 20);
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t whole = 0, resident = 0;
  file >> whole >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

std::string torch_version() {
  return TORCH_VERSION;
}

NoGrad::NoGrad() : before_(c10::GradMode::is_enabled()) {
  c10::GradMode::set_enabled(false);
}
NoGrad::~NoGrad() {
  c10::GradMode::set_enabled(before_);
}

}  // namespace hadal
