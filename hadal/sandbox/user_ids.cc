#include "hadal/sandbox/user_ids.h"

#include <algorithm>
#include <sstream>

namespace hadal {

uid_t box_user(uid_t own, uint32_t unique, const std::string& uid_map) {
  constexpr uint64_t base = 1'600'000'000;  // no distribution gives these to anybody
  if (own != 0) return own;
  const uint64_t wanted = base + unique;
  uint64_t last_begin = 0, last_count = 0;
  std::istringstream lines(uid_map);
  for (uint64_t inside, outside, count; lines >> inside >> outside >> count;) {
    if (wanted >= inside && wanted - inside < count) return static_cast<uid_t>(wanted);
    if (inside + count >= last_begin + last_count) last_begin = inside, last_count = count;
  }
  if (last_count < 1024) return own;
  // The upper half of the highest range, where containers keep their spare ids; 65534 is nobody's and
  // everybody's.
  const uint64_t half = std::min<uint64_t>(last_count / 2, 1 << 16);
  const uint64_t chosen = last_begin + last_count - 1 - unique % half;
  return static_cast<uid_t>(chosen == 65534 ? chosen - 1 : chosen);
}

}  // namespace hadal
