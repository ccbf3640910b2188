// Counter-based random numbers: a value is a function of (seed, stream, counter), so a sample depends
// neither on threads nor on who else is in the batch. Philox4x32-10 (Salmon et al., SC 2011).
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace hadal {

std::array<uint32_t, 4> philox(uint64_t seed, uint64_t stream, uint64_t counter);

// Uniform in (0, 1]: 53 bits, never 0, so its logarithm is finite.
double uniform(uint64_t seed, uint64_t stream, uint64_t counter);

// Standard normal by Box–Muller; element i of the stream (pairs share one philox call).
double normal(uint64_t seed, uint64_t stream, uint64_t index);

// FNV-1a: a stream id for a name ("layers.3.moe.experts.gate"), the same on every machine.
uint64_t stream_id(std::string_view name);

}  // namespace hadal
