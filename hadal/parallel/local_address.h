// Under which address other machines reach this one. Torch-free.
#pragma once
#include <cstdint>
#include <string>

namespace hadal {

// The numeric address that this machine has on the way to `host`; of its own name or address the one it has
// there. IPv4 before IPv6. Sends nothing. Throws unavailable if the name is unknown or no way leads there.
std::string local_address(const std::string& host, int64_t port);

}  // namespace hadal
