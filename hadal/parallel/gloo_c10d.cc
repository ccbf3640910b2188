#define USE_C10D_GLOO
#include <ATen/ops/from_blob.h>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "hadal/base/text.h"
#include "hadal/parallel/gloo.h"
#include "hadal/parallel/local_address.h"
#include "hadal/parallel/peer_lost.h"
#include "hadal/tensor/tensor.h"

namespace hadal {
namespace {

using Group = c10::intrusive_ptr<c10d::ProcessGroupGloo>;
using Clock = std::chrono::steady_clock;

Tensor bytes_at(const void* data, int64_t bytes) {
  return at::from_blob(const_cast<void*>(data), {bytes}, at::TensorOptions(at::kByte));
}

// The first line of what LibTorch says; the rest is a stack.
std::string first_line(const std::exception& e) {
  const std::string what = e.what();
  return what.substr(0, what.find('\n'));
}

class GlooComm : public Comm {
 public:
  GlooComm(Group group, std::chrono::milliseconds timeout) : group_(std::move(group)), timeout_(timeout) {}
  int64_t rank() const override { return group_->getRank(); }
  int64_t size() const override { return group_->getSize(); }

  void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) override {
    Works works;
    const Clock::time_point begin = Clock::now();
    for (const Incoming& i : in)
      guarded(i.from, begin, [&] {
        std::vector<Tensor> one{bytes_at(i.data, i.bytes)};
        works.emplace_back(i.from, group_->recv(one, static_cast<int>(i.from), 0));
      });
    post(out, begin, works);
    for (auto& [peer, work] : works) guarded(peer, begin, [&, w = work] { w->wait(timeout_); });
  }

  std::unique_ptr<Sending> begin_send(std::span<const Outgoing> out) override {
    auto sending = std::make_unique<Posted>(*this);
    post(out, Clock::now(), sending->works);
    return sending;
  }

 private:
  using Works = std::vector<std::pair<int64_t, c10::intrusive_ptr<c10d::Work>>>;

  struct Posted : Sending {
    explicit Posted(GlooComm& comm) : comm(comm) {}
    bool done() override {
      for (auto& [peer, work] : works)
        if (!work->isCompleted()) return false;
      return true;
    }
    void wait() override {
      const Clock::time_point begin = Clock::now();
      for (auto& [peer, work] : works) comm.guarded(peer, begin, [&, w = work] { w->wait(comm.timeout_); });
      works.clear();
    }
    GlooComm& comm;
    Works works;
  };

  void post(std::span<const Outgoing> out, Clock::time_point begin, Works& works) {
    for (const Outgoing& o : out)
      guarded(o.to, begin, [&] {
        std::vector<Tensor> one{bytes_at(o.data, o.bytes)};
        works.emplace_back(o.to, group_->send(one, static_cast<int>(o.to), 0));
      });
  }

  void guarded(int64_t peer, Clock::time_point begin, const std::function<void()>& body) {
    try {
      body();
    } catch (const std::exception& e) {
      const bool late = Clock::now() - begin >= timeout_;
      const std::string what =
          late ? cat("has not answered for ", static_cast<double>(timeout_.count()) / 1000, " s")
               : cat("is gone (", first_line(e), ")");
      throw PeerLost(peer, cat("[parallel.exchange] rank ", peer, " ", what, ". Look at its output."));
    }
  }

  Group group_;
  std::chrono::milliseconds timeout_;
};

// One rank needs no group.
class Alone : public Comm {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  void exchange(std::span<const Outgoing>, std::span<const Incoming>) override {}
  std::unique_ptr<Sending> begin_send(std::span<const Outgoing>) override { return nullptr; }
};

// GLOO_SOCKET_IFNAME, as everywhere with Gloo; else the way to rank 0. What this machine's host name resolves
// to may be loopback, or another network.
std::shared_ptr<::gloo::transport::Device> device_towards(const RankInfo& info) {
  if (const char* name = std::getenv("GLOO_SOCKET_IFNAME"); name && *name)
    return c10d::ProcessGroupGloo::createDeviceForInterface(name);
  return c10d::ProcessGroupGloo::createDeviceForHostname(local_address(info.host, info.port));
}

}  // namespace

std::unique_ptr<Comm> connect_gloo(const RankInfo& info, double timeout_seconds) {
  if (info.size == 1) return std::make_unique<Alone>();
  const std::chrono::milliseconds timeout(static_cast<int64_t>(timeout_seconds * 1000));
  try {
    c10d::TCPStoreOptions how;
    how.port = static_cast<uint16_t>(info.port);
    how.isServer = info.rank == 0 && !info.store_is_served;
    how.numWorkers = static_cast<size_t>(info.size);
    how.waitWorkers = !info.store_is_served;
    how.timeout = timeout;
    auto store = c10::make_intrusive<c10d::TCPStore>(info.host, how);
    store->setTimeout(timeout);
    auto place = c10::make_intrusive<c10d::PrefixStore>(cat("hadal/", info.attempt), store);
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    options->devices.push_back(device_towards(info));
    return std::make_unique<GlooComm>(
        c10::make_intrusive<c10d::ProcessGroupGloo>(place, static_cast<int>(info.rank),
                                                    static_cast<int>(info.size), options),
        timeout);
  } catch (const std::exception& e) {
    throw PeerLost(
        -1, cat("[parallel.connect] rank ", info.rank, " of ", info.size, " cannot meet the others at ",
                info.host, ":", info.port, ": ", first_line(e), ". Do all ranks run, and is the port free?"));
  }
}

}  // namespace hadal
