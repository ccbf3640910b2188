#include "hadal/cli/version.h"

namespace hadal {

std::string version_text() {
  return "hadal " HADAL_VERSION;
}

std::string build_text() {
  return HADAL_BUILD_TYPE ", " HADAL_COMPILER;
}

std::string libtorch_folder() {
  return HADAL_LIBTORCH_FOLDER;
}

}  // namespace hadal
