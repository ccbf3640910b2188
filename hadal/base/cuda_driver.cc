#include "hadal/base/cuda_driver.h"

#include <dlfcn.h>

#include "hadal/base/text.h"

namespace hadal {
namespace {

// The functions of cuda.h that are used here; all return 0 for success.
struct Driver {
  using Status = int;
  Status (*init)(unsigned) = nullptr;
  Status (*count)(int*) = nullptr;
  Status (*get)(int*, int) = nullptr;
  Status (*name)(char*, int, int) = nullptr;
  Status (*memory)(size_t*, int) = nullptr;
  Status (*attribute)(int*, int, int) = nullptr;

  explicit Driver(void* library) {
    const auto find = [library](auto& function, const char* symbol) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, symbol));
    };
    find(init, "cuInit"), find(count, "cuDeviceGetCount"), find(get, "cuDeviceGet");
    find(name, "cuDeviceGetName"), find(memory, "cuDeviceTotalMem_v2"),
        find(attribute, "cuDeviceGetAttribute");
  }
  bool whole() const { return init && count && get && name && memory && attribute; }
};

constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR

}  // namespace

CudaDevices cuda_devices() {
  CudaDevices found;
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);  // stays: others may use it
  if (!library) {
    found.problem = "no NVIDIA driver is installed (libcuda.so.1)";
    return found;
  }
  const Driver driver(library);
  if (!driver.whole()) {
    found.problem = "the NVIDIA driver is too old";
    return found;
  }
  if (const int status = driver.init(0)) {
    found.problem = cat("the NVIDIA driver does not start (cuInit gives ", status, ")");
    return found;
  }
  int n = 0;
  if (driver.count(&n) != 0) n = 0;
  for (int i = 0; i < n; ++i) {
    int device = 0;
    char name[256] = "";
    size_t bytes = 0;
    CudaDevice one;
    if (driver.get(&device, i) != 0) continue;
    driver.name(name, sizeof name, device), driver.memory(&bytes, device);
    driver.attribute(&one.major, kMajor, device), driver.attribute(&one.minor, kMinor, device);
    one.name = name, one.memory_bytes = static_cast<int64_t>(bytes);
    found.devices.push_back(one);
  }
  if (found.devices.empty()) found.problem = "the NVIDIA driver sees no GPU";
  return found;
}

}  // namespace hadal
