// Rotary pairs in their two layouts: x by the angles (cos, sin) [R/2] of a position, in place.
#pragma once
#include <cstdint>

namespace hadal {

inline void rotate_pair(float& a, float& b, float cos, float sin) {
  const float turned = a * cos - b * sin;
  b = a * sin + b * cos;
  a = turned;
}

// Channels 2i and 2i + 1: of attention.
inline void rotate_neighbours(float* x, const float* cos, const float* sin, int64_t R) {
  for (int64_t i = 0; i < R / 2; ++i) rotate_pair(x[2 * i], x[2 * i + 1], cos[i], sin[i]);
}

// Channels i and i + R/2: of an indexer.
inline void rotate_halves(float* x, const float* cos, const float* sin, int64_t R) {
  for (int64_t i = 0; i < R / 2; ++i) rotate_pair(x[i], x[i + R / 2], cos[i], sin[i]);
}

}  // namespace hadal
