#include "hadal/parallel/gloo.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "hadal/parallel/peer_lost.h"

namespace hadal {
namespace {

int64_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET, address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

// Each rank in a thread, with connections of its own.
void over_gloo(int64_t size, double timeout, const std::function<void(std::unique_ptr<Comm>)>& body) {
  const int64_t port = free_port();
  std::vector<std::thread> threads;
  for (int64_t r = 0; r < size; ++r)
    threads.emplace_back([&, r] { body(connect_gloo({.rank = r, .size = size, .port = port}, timeout)); });
  for (std::thread& thread : threads) thread.join();
}

std::vector<float> values_of(int64_t rank) {
  std::vector<float> values;
  for (int64_t i = 0; i < 100'003; ++i)
    values.push_back(static_cast<float>((i * 7919 + rank * 104729) % 1000) * 0.1f);
  return values;
}

TEST(Gloo, SumsAreThoseOfRanksInOneProcessBitForBit) {
  for (const int64_t ranks : {2, 3}) {
    std::vector<float> want;
    run_ranks(ranks, [&](Comm& comm) {
      std::vector<float> values = values_of(comm.rank());
      all_reduce(comm, values);
      if (comm.rank() == 0) want = values;
    });
    over_gloo(ranks, 30, [&](std::unique_ptr<Comm> comm) {
      for (int i = 0; i < 3; ++i) {
        std::vector<float> values = values_of(comm->rank());
        all_reduce(*comm, values);
        EXPECT_EQ(values, want);
      }
      EXPECT_EQ(broadcast_bytes(*comm, comm->rank() == 0 ? "text" : "", 0), "text");
      barrier(*comm);
    });
  }
}

TEST(Gloo, ARankThatIsGoneIsNamedAtOnce) {
  const auto begin = std::chrono::steady_clock::now();
  std::atomic<bool> met{false};
  over_gloo(2, 30, [&](std::unique_ptr<Comm> comm) {
    if (comm->rank() == 1) {
      while (!met) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return;  // and with it its connections
    }
    met = true;
    try {
      int value = 0;
      receive(*comm, 1, &value, sizeof value);
      ADD_FAILURE() << "no error";
    } catch (const PeerLost& e) {
      EXPECT_EQ(e.peer(), 1);
      EXPECT_NE(std::string(e.what()).find("rank 1 is gone"), std::string::npos) << e.what();
    }
  });
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15));
}

TEST(Gloo, ASilentRankIsNamedAfterTheTimeout) {
  std::atomic<bool> done{false};
  over_gloo(2, 1, [&](std::unique_ptr<Comm> comm) {
    if (comm->rank() == 1) {
      while (!done) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      return;
    }
    try {
      int value = 0;
      receive(*comm, 1, &value, sizeof value);
      ADD_FAILURE() << "no error";
    } catch (const PeerLost& e) {
      EXPECT_NE(std::string(e.what()).find("rank 1 has not answered for 1 s"), std::string::npos) << e.what();
    }
    done = true;
  });
}

TEST(Gloo, ARankThatDoesNotComeIsAnErrorThatNamesThePlace) {
  try {
    connect_gloo({.rank = 1, .size = 2, .port = free_port()}, 1);
    FAIL() << "no error";
  } catch (const PeerLost& e) {
    EXPECT_NE(std::string(e.what()).find("cannot meet the others at 127.0.0.1:"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace hadal
