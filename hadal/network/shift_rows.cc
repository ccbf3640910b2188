// Cached rows at new positions: a key after RoPE is turned by the difference of two angles.
#include <algorithm>
#include <cmath>
#include <vector>

#include "hadal/base/check.h"
#include "hadal/network/network.h"

namespace hadal {

void Network::shift_rows(std::span<const PageMove> moves, int64_t first_position, int64_t num_rows,
                         int64_t drop_tokens, LatentPages& pages) {
  HADAL_CHECK(first_position % kPageTokens == 0 && num_rows <= std::ssize(moves) * kPageTokens)
      << num_rows << " rows from " << first_position << " in " << moves.size() << " pages";
  const size_t pairs = frequency_.size();
  // From one rounded fp32 angle to the other (network.cc: plan), so that the sum of both turns is the turn
  // of a key computed anew. The multiplier is in the key already.
  std::vector<float> cos(static_cast<size_t>(num_rows) * pairs), sin(cos.size());
  for (int64_t row = 0; row < num_rows; ++row)
    for (size_t i = 0; i < pairs; ++i) {
      const float from = static_cast<float>(first_position + row + drop_tokens) * frequency_[i];
      const float to = static_cast<float>(first_position + row) * frequency_[i];
      const double turn = static_cast<double>(to) - static_cast<double>(from);
      cos[static_cast<size_t>(row) * pairs + i] = static_cast<float>(std::cos(turn));
      sin[static_cast<size_t>(row) * pairs + i] = static_cast<float>(std::sin(turn));
    }
  pool_.run([&](int worker) {
    for (int64_t layer = worker; layer < pages.layers(); layer += pool_.size())
      for (int64_t p = 0; p * kPageTokens < num_rows; ++p) {
        const size_t at = static_cast<size_t>(p * kPageTokens) * pairs;
        pages.move(layer, moves[static_cast<size_t>(p)], std::min(kPageTokens, num_rows - p * kPageTokens),
                   cos.data() + at, sin.data() + at);
      }
  });
}

}  // namespace hadal
