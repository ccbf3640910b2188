#include "hadal/kernels/train.h"

#include "hadal/kernels/kernel_tables.h"

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

const KernelTables<TrainKernels>& tables() {
  static const KernelTables<TrainKernels> found{
#ifdef __x86_64__
      &kernels::avx512::kTrain, &kernels::avx2::kTrain,
#endif
      &kernels::scalar::kTrain};
  return found;
}

}  // namespace

const TrainKernels& train_kernels() {
  static const TrainKernels& chosen = tables().chosen();
  return chosen;
}

int num_train_kernels() {
  return tables().size();
}
const TrainKernels& train_kernels_at(int index) {
  return tables().at(index);
}

}  // namespace hadal
