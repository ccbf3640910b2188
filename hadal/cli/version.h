#pragma once
#include <string>

namespace hadal {

// "hadal 0.1.0"
std::string version_text();

// "Release, g++ 12.2.0, with LibTorch"
std::string build_text();

// Folder of LibTorch that this build links hadal-compute with; "" without one.
std::string libtorch_folder();

}  // namespace hadal
