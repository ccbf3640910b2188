#include <gtest/gtest.h>

#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

// A suffix that is not the dims does not compile; the predicate behind the static_assert shows it.
static_assert(detail::suffix_matches("x_TD", "T, D"));
static_assert(detail::suffix_matches("q_nope_THN", "T, H, N"));
static_assert(detail::suffix_matches("cos_LX_", "L, X"));
static_assert(!detail::suffix_matches("x_TD", "D, T"));
static_assert(!detail::suffix_matches("x_TD", "T"));
static_assert(!detail::suffix_matches("x_T", "T, D"));

TEST(Shape, WrongSizeIsNamedWithFileAndBothShapes) {
  const Tensor q_rope_BHR = zeros({3, 4, 4});
  const int64_t B = 3, H = 4, R = 8;
  try {
    HADAL_SHAPE(q_rope_BHR, B, H, R);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("shape_test.cc:"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("q_rope_BHR is [3, 4, 4], wants [3, 4, 8]"), std::string::npos);
  }
}

TEST(Shape, UndefinedTensorIsRefused) {
  const Tensor x_T;
  const int64_t T = 1;
  EXPECT_THROW(HADAL_SHAPE(x_T, T), Error);
}

TEST(NoGrad, RestoresTheModeItFound) {
  Tensor w = zeros({2}).requires_grad_(true);
  {
    NoGrad guard;
    EXPECT_FALSE((w * 2).requires_grad());
  }
  EXPECT_TRUE((w * 2).requires_grad());
}

}  // namespace
}  // namespace hadal
