// Ranks as processes, over c10d's Gloo backend: TCP between every two of them.
#pragma once
#include <memory>

#include "hadal/parallel/comm.h"
#include "hadal/parallel/rank_environment.h"

namespace hadal {

// Meets the other ranks at info.host:port. A rank that does not come or does not answer for
// `timeout_seconds` is a PeerLost, one whose connection breaks at once. size 1: meets nobody.
std::unique_ptr<Comm> connect_gloo(const RankInfo& info, double timeout_seconds);

}  // namespace hadal
