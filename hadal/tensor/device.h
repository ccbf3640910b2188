// Where tensors are: on the CPU, or on a GPU by CUDA. hadal is built without CUDA; LibTorch's CUDA library is
// loaded when a GPU is asked for.
#pragma once
#include <string>

#include "hadal/tensor/tensor.h"

namespace hadal {

constexpr const char* kCudaFolderVariable = "HADAL_LIBTORCH_CUDA";

// "cpu", "cuda" (the first GPU) or "cuda:N". The first GPU asked for loads libtorch_cuda.so from the folder
// in $HADAL_LIBTORCH_CUDA, the torch/lib of an installation of the same version of torch, or from beside
// libtorch_cpu.so. It must be asked for before the process computes its first gradient. Throws
// invalid_argument (no such name or number), not_found (no library), unsupported (another version),
// unavailable (no GPU).
at::Device open_device(const std::string& name);

// x itself if it is there.
Tensor on_device(const Tensor& x, at::Device device);

// Waits for the device to finish; nothing on the CPU.
void synchronize(at::Device device);

// Whether operations on x are LibTorch's own: our kernels are of the CPU.
bool is_plain(const Tensor& x);

// While one lives, tensors of the CPU are plain too, on all threads: for comparisons.
class PlainOperations {
 public:
  PlainOperations();
  ~PlainOperations();
  PlainOperations(const PlainOperations&) = delete;
};

}  // namespace hadal
