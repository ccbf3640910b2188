// Rotary position embedding on interleaved pairs (2i, 2i+1), with YaRN (architecture spec 5).
#pragma once
#include "hadal/config/rope_frequencies.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

// cos and sin of the angles of the given positions.
struct RopeAngles {
  Tensor cos_SX, sin_SX;  // fp32, X = R/2 pairs, multiplier included
};
RopeAngles rope_angles(const MlaConfig& mla, const Tensor& position_S);

// (a, b) -> (a cos - b sin, a sin + b cos) for each pair, in fp32, cast back. Position dimension is dim 1:
// x: [B, S, R] or [B, S, H, R].
Tensor rope(const Tensor& x, const RopeAngles& angles);

}  // namespace hadal
