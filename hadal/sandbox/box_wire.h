// The talk between run_sandboxed() and hadal-box over one socket: a request, then frames until the result.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "hadal/sandbox/sandbox.h"

namespace hadal {

constexpr int kBoxSocket = 3;  // descriptor of hadal-box

struct BoxRequest {
  SandboxSpec spec;
  bool probe = false;  // try the walls instead of a command
  std::string cgroup;  // folder for a cgroup of the box; "": none
};

std::string encode(const BoxRequest& request);
BoxRequest decode_request(std::string_view bytes);  // throws Error{corrupt}

// All but out and err, which come as frames of their own.
std::string encode(const SandboxResult& result);
SandboxResult decode_result(std::string_view bytes);

enum class FrameKind : char { kRequest = 'q', kOut = 'o', kErr = 'e', kResult = 'r' };

// False if the other side is gone.
bool send_frame(int fd, FrameKind kind, std::string_view body);
bool receive_frame(int fd, FrameKind& kind, std::string& body);

}  // namespace hadal
