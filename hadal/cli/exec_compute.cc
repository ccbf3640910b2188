#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/error.h"

namespace hadal {

std::string find_compute() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return "";
  const auto folder = self.parent_path();
  for (const auto& place : {folder / "hadal-compute", folder / "../libexec/hadal/hadal-compute"})
    if (::access(place.c_str(), X_OK) == 0) return place.lexically_normal().string();
  return "";
}

int exec_compute(const std::string& command, char** argv) {
  const std::string compute = find_compute();
  if (compute.empty())
    throw Error(
        ErrorCode::kNotFound,
        cat("[cli.", command, "] \"", command, "\" needs hadal-compute, the part that links LibTorch: it is ",
            "neither beside this program nor in ../libexec/hadal. Build it: ./dev build."));
  // libgomp's threads spin for milliseconds while they wait; with another program on the same cores that
  // halves the speed and worse. It reads this only when it is loaded, so here is the place.
  if (!::getenv("OMP_WAIT_POLICY")) ::setenv("GOMP_SPINCOUNT", "20000", /*overwrite=*/0);
  // Its store of ranks writes a stack for each try to connect; our own errors say what matters.
  ::setenv("TORCH_CPP_LOG_LEVEL", "FATAL", /*overwrite=*/0);
  ::execv(compute.c_str(), argv);
  throw Error(ErrorCode::kUnavailable,
              cat("[cli.", command, "] cannot start ", compute, ": ", std::strerror(errno), "."));
}

}  // namespace hadal
