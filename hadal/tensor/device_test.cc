#include "hadal/tensor/device.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "tests/support/error_of.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

std::string problem(const std::string& device) {
  return error_of([&] { open_device(device); });
}

class Variable {
 public:
  explicit Variable(const std::string& value) { ::setenv(kCudaFolderVariable, value.c_str(), 1); }
  ~Variable() { ::unsetenv(kCudaFolderVariable); }
};

TEST(Device, CpuNeedsNothing) {
  EXPECT_TRUE(open_device("cpu").is_cpu());
}

TEST(Device, NamesOfNoDeviceAreRefused) {
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1234", "cuda0"})
    EXPECT_NE(problem(name).find("need cpu, cuda or cuda:N"), std::string::npos) << name;
}

TEST(Device, AFolderWithoutTheLibraryIsNamedWithTheWayOut) {
  const TemporaryFolder folder;
  const Variable variable(folder.path().string());
  const std::string text = problem("cuda");
  EXPECT_NE(text.find("no libtorch_cuda.so in " + folder.path().string()), std::string::npos) << text;
  EXPECT_NE(text.find("pip install torch==" + torch_version()), std::string::npos) << text;
}

TEST(Device, ALibraryOfAnotherVersionIsRefused) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path() / "lib");
  std::ofstream(folder.path() / "lib/libtorch_cuda.so") << "x";
  std::ofstream(folder.path() / "version.py") << "debug = False\n__version__ = '2.4.1+cu121'\n";
  const Variable variable((folder.path() / "lib").string());
  EXPECT_NE(problem("cuda").find("is of torch 2.4.1+cu121, this program needs " + torch_version()),
            std::string::npos);
}

TEST(Device, AFileThatIsNoLibraryIsRefusedWithTheLoadersWords) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "libtorch_cuda.so") << "x";
  const Variable variable(folder.path().string());
  EXPECT_NE(problem("cuda").find("libtorch_cuda.so cannot be loaded: "), std::string::npos);
}

TEST(Device, PlainOperationsAreAskedForAsLongAsOneLives) {
  const Tensor x = zeros({1});
  EXPECT_FALSE(is_plain(x));
  {
    const PlainOperations plain;
    EXPECT_TRUE(is_plain(x));
  }
  EXPECT_FALSE(is_plain(x));
}

}  // namespace
}  // namespace hadal
