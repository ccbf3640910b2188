#include "hadal/kernels/infer.h"

#include "hadal/kernels/kernel_tables.h"

namespace hadal {
namespace kernels {
namespace scalar {
extern const InferKernels kInfer;
}
#ifdef __x86_64__
namespace avx2 {
extern const InferKernels kInfer;
}
namespace avx512 {
extern const InferKernels kInfer;
}
namespace avx512vnni {
extern const InferKernels kInfer;
}
#endif
}  // namespace kernels

namespace {

const KernelTables<InferKernels>& tables() {
  static const KernelTables<InferKernels> found{
#ifdef __x86_64__
      &kernels::avx512vnni::kInfer, &kernels::avx512::kInfer, &kernels::avx2::kInfer,
#endif
      &kernels::scalar::kInfer};
  return found;
}

}  // namespace

const InferKernels& infer_kernels() {
  static const InferKernels& chosen = tables().chosen();
  return chosen;
}

int num_infer_kernels() {
  return tables().size();
}
const InferKernels& infer_kernels_at(int index) {
  return tables().at(index);
}

}  // namespace hadal
