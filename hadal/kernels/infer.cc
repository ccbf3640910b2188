#include "hadal/kernels/infer.h"

#include <vector>

#include "hadal/kernels/isa.h"

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

std::vector<const InferKernels*> runnable() {
  std::vector<const InferKernels*> tables;
  for (const InferKernels* table : {
#ifdef __x86_64__
           &kernels::avx512vnni::kInfer, &kernels::avx512::kInfer, &kernels::avx2::kInfer,
#endif
           &kernels::scalar::kInfer})
    if (isa_runs(table->isa)) tables.push_back(table);
  return tables;
}

const std::vector<const InferKernels*>& tables() {
  static const std::vector<const InferKernels*> found = runnable();
  return found;
}

const InferKernels* choose() {
  const int rank = chosen_isa_rank();
  for (const InferKernels* table : tables())
    if (isa_rank(table->isa) >= rank) return table;
  return &kernels::scalar::kInfer;
}

}  // namespace

const InferKernels& infer_kernels() {
  static const InferKernels* chosen = choose();
  return *chosen;
}

int num_infer_kernels() {
  return static_cast<int>(tables().size());
}
const InferKernels& infer_kernels_at(int index) {
  return *tables().at(static_cast<size_t>(index));
}

}  // namespace hadal
