// LibTorch's free functions that have no method form, as thin non-inline wrappers: the headers they need
// cost seconds a file. Those that make tensors make them on the CPU.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "hadal/tensor/tensor.h"

namespace hadal {

Tensor empty(at::IntArrayRef shape, at::ScalarType dtype = at::kFloat);
Tensor zeros(at::IntArrayRef shape, at::ScalarType dtype = at::kFloat);
Tensor full(at::IntArrayRef shape, double value, at::ScalarType dtype = at::kFloat);
Tensor arange(int64_t begin, int64_t end);  // int64
Tensor concat(const std::vector<Tensor>& parts, int64_t dim);
Tensor stack(const std::vector<Tensor>& parts, int64_t dim);
Tensor silu(const Tensor& x);

// [S] int64 from ids; [n] float from values. Copies.
Tensor from_ids(std::span<const int32_t> ids);
Tensor from_ints(std::span<const int64_t> values);
Tensor from_floats(std::span<const float> values);
std::vector<float> to_floats(const Tensor& x);  // flattened, any dtype
std::vector<int64_t> to_ints(const Tensor& x);  // flattened

// Runs body(begin, end) over [0, n) in pieces of at least `grain`, on LibTorch's threads.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

// Threads LibTorch uses inside an operation. Call once at start.
void set_num_threads(int threads);
int num_threads();

// Freed memory stays with the process: a training step frees and asks for the same large blocks again, and
// fetching them anew from the kernel costs a page fault every 4 KiB. Call once at start.
void keep_freed_memory();
// The opposite: blocks of a MiB and more go back to the kernel when they are freed. The process is then no
// larger than what is in use, and slower by the page faults.
void return_freed_memory();
// Of the process, resident now.
int64_t resident_bytes();

// The installed LibTorch's version, "2.11.0".
std::string torch_version();

// While one lives on this thread, no gradient graph is built.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;

 private:
  bool before_;
};

}  // namespace hadal
