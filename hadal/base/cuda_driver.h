// The NVIDIA GPUs of this machine, as its driver tells: libcuda.so.1 is opened when asked, never linked.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace hadal {

struct CudaDevice {
  std::string name;
  int64_t memory_bytes = 0;
  int major = 0, minor = 0;  // compute capability
};
struct CudaDevices {
  std::vector<CudaDevice> devices;
  std::string problem;  // why there are none: "no NVIDIA driver is installed"; "" if there are some
};
CudaDevices cuda_devices();

}  // namespace hadal
