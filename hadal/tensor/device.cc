#include "hadal/tensor/device.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <mutex>

#include "hadal/base/cuda_driver.h"
#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

std::atomic<int> plain_operations{0};

// The folder of the library that a function of LibTorch came from.
fs::path libtorch_cpu_folder() {
  Dl_info info{};
  if (!::dladdr(reinterpret_cast<void*>(&c10::impl::device_guard_impl_registry), &info)) return {};
  return fs::path(info.dli_fname).parent_path();  // libc10.so, beside libtorch_cpu.so
}

std::string how_to_get() {
  return cat("Install torch==", torch_version(),
             " with its nvidia packages (pip install torch==", torch_version(), ") and set ",
             kCudaFolderVariable, " to its folder torch/lib.");
}

fs::path library_folder() {
  const char* given = std::getenv(kCudaFolderVariable);
  const fs::path folder = given && *given ? fs::path(given) : libtorch_cpu_folder();
  if (!fs::exists(folder / "libtorch_cuda.so"))
    throw Error(ErrorCode::kNotFound, cat("[tensor.device] there is no libtorch_cuda.so in ", folder.string(),
                                          ", which computing on a GPU needs. ", how_to_get()));
  return folder;
}

// An installation says its version in torch/version.py: __version__ = '2.11.0+cu130'.
void check_version(const fs::path& folder) {
  const fs::path file = folder / "../version.py";
  if (!fs::exists(file)) return;
  const std::string text = read_file(file, 1 << 16);
  const size_t at = text.find("__version__ = ");
  if (at == std::string::npos) return;
  const size_t begin = text.find('\'', at) + 1, end = text.find('\'', begin);
  if (begin == 0 || end == std::string::npos) return;
  const std::string version = text.substr(begin, end - begin);
  if (version.substr(0, version.find('+')) != torch_version())
    throw Error(ErrorCode::kUnsupported, cat("[tensor.device] ", folder.string(), " is of torch ", version,
                                             ", this program needs ", torch_version(), ". ", how_to_get()));
}

// What it needs of the wheel is loaded already or found through its own paths; libtorch_cpu.so and libc10.so
// are the ones of this process, known by their names.
void load_cuda() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (c10::impl::hasDeviceGuardImpl(at::kCUDA)) return;
    const fs::path folder = library_folder();
    check_version(folder);
    const std::string library = (folder / "libtorch_cuda.so").string();
    if (!::dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL))
      throw Error(ErrorCode::kUnavailable,
                  cat("[tensor.device] ", library, " cannot be loaded: ", ::dlerror(), ". ", how_to_get()));
    if (!c10::impl::hasDeviceGuardImpl(at::kCUDA))
      throw Error(ErrorCode::kUnsupported,
                  cat("[tensor.device] ", library, " brought another LibTorch than this program's, in ",
                      libtorch_cpu_folder().string(), ". Put its folder into LD_LIBRARY_PATH too."));
  });
}

[[noreturn]] void bad_name(const std::string& name) {
  throw Error(ErrorCode::kInvalidArgument,
              cat("[tensor.device] device is \"", name, "\", need cpu, cuda or cuda:N."));
}

int index_of(const std::string& name) {
  if (name == "cuda") return 0;
  const std::string digits = name.starts_with("cuda:") ? name.substr(5) : "";
  if (digits.empty() || digits.size() > 3 || digits.find_first_not_of("0123456789") != std::string::npos)
    bad_name(name);
  return std::stoi(digits);
}

}  // namespace

at::Device open_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  const int index = index_of(name);
  load_cuda();
  const auto* guard = c10::impl::getDeviceGuardImpl(at::kCUDA);
  const int devices = guard->deviceCount();
  if (devices == 0) {
    const std::string problem = cuda_devices().problem;
    throw Error(ErrorCode::kUnavailable,
                cat("[tensor.device] there is no GPU to compute on: ",
                    problem.empty() ? "CUDA cannot use those that the driver sees" : problem,
                    ". Compute on the CPU (device cpu), or see to the driver (nvidia-smi)."));
  }
  if (index >= devices)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[tensor.device] device is \"", name, "\", this machine has ", devices,
                    devices == 1 ? " GPU" : " GPUs", ": cuda:0",
                    devices == 1 ? "" : cat(" to cuda:", devices - 1), "."));
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
  guard->setDevice(device);
  return device;
}

Tensor on_device(const Tensor& x, at::Device device) {
  return !x.defined() || x.device() == device ? x : x.to(device);
}

void synchronize(at::Device device) {
  if (!device.is_cpu()) c10::impl::getDeviceGuardImpl(device.type())->synchronizeDevice(device.index());
}

bool is_plain(const Tensor& x) {
  return !x.is_cpu() || plain_operations.load(std::memory_order_relaxed) > 0;
}

PlainOperations::PlainOperations() {
  ++plain_operations;
}
PlainOperations::~PlainOperations() {
  --plain_operations;
}

}  // namespace hadal
