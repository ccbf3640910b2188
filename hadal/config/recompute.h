// What the backward pass of training computes again instead of keeping it.
#pragma once
#include <optional>
#include <string_view>

namespace hadal {

// Gradients are the same, bit for bit.
enum class Recompute {
  kNone,
  kSelective,  // outputs of RMSNorm, of the MLA up-projections and of SwiGLU, as V3 (V3 report 3.2.3)
  kFull,       // whole layers: a layer keeps its input and its choice of experts
};
const char* name(Recompute recompute);  // "none", "selective", "full"
std::optional<Recompute> recompute_named(std::string_view text);

}  // namespace hadal
