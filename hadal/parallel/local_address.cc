#include "hadal/parallel/local_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// "" if no way leads there.
std::string towards(const addrinfo& there) {
  const int fd = ::socket(there.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return "";
  sockaddr_storage here{};
  socklen_t length = sizeof here;
  auto* const any = reinterpret_cast<sockaddr*>(&here);
  // Connecting a datagram socket chooses the route and no more.
  const bool found =
      ::connect(fd, there.ai_addr, there.ai_addrlen) == 0 && ::getsockname(fd, any, &length) == 0;
  ::close(fd);
  char text[NI_MAXHOST];
  if (!found || ::getnameinfo(any, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) return "";
  return text;
}

}  // namespace

std::string local_address(const std::string& host, int64_t port) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_DGRAM;
  addrinfo* list = nullptr;
  const int unknown = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &list);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, [](addrinfo* a) {
    if (a) ::freeaddrinfo(a);
  });
  for (const int family : {AF_INET, AF_INET6})
    for (const addrinfo* a = list; a; a = a->ai_next)
      if (a->ai_family == family)
        if (const std::string found = towards(*a); !found.empty()) return found;
  throw Error(ErrorCode::kUnavailable,
              cat("[parallel.address] ", host, " cannot be reached: ",
                  unknown != 0 ? ::gai_strerror(unknown) : "no route", ". Is MASTER_ADDR rank 0's machine?"));
}

}  // namespace hadal
