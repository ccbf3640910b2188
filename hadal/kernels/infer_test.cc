#include "hadal/kernels/infer.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

TEST(InferKernels, ScalarIsLastAndTheChosenOneRunsHere) {
  EXPECT_STREQ(infer_kernels_at(num_infer_kernels() - 1).isa, "scalar");
  EXPECT_NE(infer_kernels().dot_rows, nullptr);
}

}  // namespace
}  // namespace hadal
