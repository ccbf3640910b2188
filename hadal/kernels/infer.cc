#include "hadal/kernels/infer.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace kernels {
namespace scalar {
extern const InferKernels kInfer;
}
}  // namespace kernels

namespace {

std::vector<const InferKernels*> runnable() {
  std::vector<const InferKernels*> tables;
  tables.push_back(&kernels::scalar::kInfer);
  return tables;
}

const std::vector<const InferKernels*>& tables() {
  static const std::vector<const InferKernels*> found = runnable();
  return found;
}

const InferKernels* choose() {
  const char* wanted = std::getenv("HADAL_ISA");
  if (!wanted || !*wanted) return tables().front();
  std::vector<std::string> names;
  for (const InferKernels* table : tables()) {
    names.push_back(table->isa);
    if (names.back() == wanted) return table;
  }
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  throw Error(ErrorCode::kUnsupported, cat("[kernels.choose] HADAL_ISA is \"", wanted,
                                           "\", this machine runs ", known, ". Choose one of them."));
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
