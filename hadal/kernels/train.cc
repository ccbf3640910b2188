#include "hadal/kernels/train.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace kernels {
namespace scalar {
extern const TrainKernels kTrain;
}
#ifdef __x86_64__
namespace avx2 {
extern const TrainKernels kTrain;
}
namespace avx512 {
extern const TrainKernels kTrain;
}
#endif
}  // namespace kernels

namespace {

std::vector<const TrainKernels*> runnable() {
  std::vector<const TrainKernels*> tables;
#ifdef __x86_64__
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    tables.push_back(&kernels::avx512::kTrain);
  if (avx2) tables.push_back(&kernels::avx2::kTrain);
#endif
  tables.push_back(&kernels::scalar::kTrain);
  return tables;
}

const std::vector<const TrainKernels*>& tables() {
  static const std::vector<const TrainKernels*> found = runnable();
  return found;
}

const TrainKernels* choose() {
  const char* wanted = std::getenv("HADAL_ISA");
  if (!wanted || !*wanted) return tables().front();
  std::vector<std::string> names;
  for (const TrainKernels* table : tables()) {
    names.push_back(table->isa);
    if (names.back() == wanted) return table;
  }
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  throw Error(ErrorCode::kUnsupported, cat("[kernels.choose] HADAL_ISA is \"", wanted,
                                           "\", this machine runs ", known, ". Choose one of them."));
}

}  // namespace

const TrainKernels& train_kernels() {
  static const TrainKernels* chosen = choose();
  return *chosen;
}

int num_train_kernels() {
  return static_cast<int>(tables().size());
}
const TrainKernels& train_kernels_at(int index) {
  return *tables().at(static_cast<size_t>(index));
}

}  // namespace hadal
