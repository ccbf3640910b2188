#include "hadal/kernels/product.h"

#include <cstdlib>
#include <memory>
#include <new>

#include "hadal/kernels/kernel_tables.h"

namespace hadal {
namespace kernels {
namespace scalar {
extern const ProductKernels kProduct;
}
#ifdef __x86_64__
namespace avx2 {
extern const ProductKernels kProduct;
}
namespace avx512 {
extern const ProductKernels kProduct;
}
#endif
}  // namespace kernels

namespace {

const KernelTables<ProductKernels>& tables() {
  static const KernelTables<ProductKernels> found{
#ifdef __x86_64__
      &kernels::avx512::kProduct, &kernels::avx2::kProduct,
#endif
      &kernels::scalar::kProduct};
  return found;
}

struct Free {
  void operator()(float* space) const { std::free(space); }
};

float* space_of_thread() {
  thread_local const std::unique_ptr<float, Free> space(
      static_cast<float*>(std::aligned_alloc(64, kProductSpace * sizeof(float))));
  if (!space) throw std::bad_alloc();
  return space.get();
}

}  // namespace

void multiply(const Product& product) {
  static const ProductKernels& chosen = tables().chosen();
  chosen.multiply(product, space_of_thread());
}

int num_product_kernels() {
  return tables().size();
}
const ProductKernels& product_kernels_at(int index) {
  return tables().at(index);
}

}  // namespace hadal
