#include "hadal/kernels/train.h"

#include <vector>

#include "hadal/kernels/isa.h"

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
  for (const TrainKernels* table : {
#ifdef __x86_64__
           &kernels::avx512::kTrain, &kernels::avx2::kTrain,
#endif
           &kernels::scalar::kTrain})
    if (isa_runs(table->isa)) tables.push_back(table);
  return tables;
}

const std::vector<const TrainKernels*>& tables() {
  static const std::vector<const TrainKernels*> found = runnable();
  return found;
}

const TrainKernels* choose() {
  const int rank = chosen_isa_rank();
  for (const TrainKernels* table : tables())
    if (isa_rank(table->isa) >= rank) return table;
  return &kernels::scalar::kTrain;
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
