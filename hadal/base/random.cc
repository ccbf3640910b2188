#include "hadal/base/random.h"

#include <cmath>
#include <numbers>

namespace hadal {

std::array<uint32_t, 4> philox(uint64_t seed, uint64_t stream, uint64_t counter) {
  constexpr uint32_t kMul0 = 0xD2511F53, kMul1 = 0xCD9E8D57, kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{kMul0} * c0, p1 = uint64_t{kMul1} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0,
                   n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c0 = n0, c1 = static_cast<uint32_t>(p1), c2 = n2, c3 = static_cast<uint32_t>(p0);
    k0 += kWeyl0, k1 += kWeyl1;
  }
  return {c0, c1, c2, c3};
}

namespace {

double to_unit(uint32_t high, uint32_t low) {
  const uint64_t bits = (uint64_t{high} << 21) ^ (low >> 11);
  return (static_cast<double>(bits & ((uint64_t{1} << 53) - 1)) + 1.0) * 0x1p-53;
}

}  // namespace

double uniform(uint64_t seed, uint64_t stream, uint64_t counter) {
  const auto bits = philox(seed, stream, counter);
  return to_unit(bits[0], bits[1]);
}

double normal(uint64_t seed, uint64_t stream, uint64_t index) {
  const auto bits = philox(seed, stream, index / 2);
  const double radius = std::sqrt(-2.0 * std::log(to_unit(bits[0], bits[1])));
  const double angle = 2.0 * std::numbers::pi * to_unit(bits[2], bits[3]);
  return radius * (index % 2 ? std::sin(angle) : std::cos(angle));
}

uint64_t stream_id(std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001B3;
  return hash;
}

}  // namespace hadal
