#include "hadal/config/recompute.h"

namespace hadal {

const char* name(Recompute recompute) {
  return recompute == Recompute::kNone ? "none" : recompute == Recompute::kFull ? "full" : "selective";
}

std::optional<Recompute> recompute_named(std::string_view text) {
  for (const Recompute one : {Recompute::kNone, Recompute::kSelective, Recompute::kFull})
    if (text == name(one)) return one;
  return std::nullopt;
}

}  // namespace hadal
