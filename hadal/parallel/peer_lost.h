// The error of a rank whose peer is gone or silent: it is not the cause, and whoever reports looks further.
#pragma once
#include "hadal/error.h"

namespace hadal {

class PeerLost : public Error {
 public:
  PeerLost(int64_t peer, const std::string& text) : Error(ErrorCode::kUnavailable, text), peer_(peer) {}
  int64_t peer() const { return peer_; }

 private:
  int64_t peer_;
};

// Exit code of a program that ended for that reason, so that a launcher can tell it from the cause.
constexpr int kPeerLostExit = 6;

}  // namespace hadal
