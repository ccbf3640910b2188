// Ranks as threads of one process: a mailbox for each pair.
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "hadal/base/text.h"
#include "hadal/parallel/comm.h"
#include "hadal/parallel/peer_lost.h"

namespace hadal {
namespace {

struct Mail {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::pair<int64_t, int64_t>, std::deque<std::string>> boxes;  // (from, to)
  int64_t failed = -1;                                                   // the first rank that threw
};

class ThreadComm : public Comm {
 public:
  ThreadComm(Mail& mail, int64_t rank, int64_t size, double timeout_seconds)
      : mail_(mail), rank_(rank), size_(size), timeout_(timeout_seconds) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }

  void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) override {
    put(out);
    for (const Incoming& i : in) take(i);
  }
  std::unique_ptr<Sending> begin_send(std::span<const Outgoing> out) override {
    put(out);
    return std::make_unique<Sent>();
  }

 private:
  struct Sent : Sending {  // in the receiver's box
    bool done() override { return true; }
    void wait() override {}
  };

  void put(std::span<const Outgoing> out) {
    {
      const std::lock_guard lock(mail_.mutex);
      for (const Outgoing& o : out)
        mail_.boxes[{rank_, o.to}].emplace_back(static_cast<const char*>(o.data),
                                                static_cast<size_t>(o.bytes));
    }
    mail_.changed.notify_all();
  }

  void take(const Incoming& in) {
    std::unique_lock lock(mail_.mutex);
    auto& box = mail_.boxes[{in.from, rank_}];
    const bool in_time = mail_.changed.wait_for(lock, std::chrono::duration<double>(timeout_),
                                                [&] { return !box.empty() || mail_.failed >= 0; });
    if (box.empty() && mail_.failed >= 0)
      throw PeerLost(mail_.failed, cat("[parallel.exchange] rank ", mail_.failed, " is gone."));
    if (!in_time)
      throw PeerLost(in.from,
                     cat("[parallel.exchange] rank ", in.from, " has not answered for ", timeout_, " s."));
    if (static_cast<int64_t>(box.front().size()) != in.bytes)
      throw Error(ErrorCode::kInternal,
                  cat("[parallel.exchange] rank ", in.from, " sent ", box.front().size(), " bytes, rank ",
                      rank_, " expects ", in.bytes, "."));
    std::memcpy(in.data, box.front().data(), box.front().size());
    box.pop_front();
  }

  Mail& mail_;
  int64_t rank_, size_;
  double timeout_;
};

}  // namespace

void run_ranks(int64_t size, const std::function<void(Comm&)>& body, double timeout_seconds) {
  Mail mail;
  std::exception_ptr cause;
  std::vector<std::thread> threads;
  for (int64_t r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      try {
        ThreadComm comm(mail, r, size, timeout_seconds);
        body(comm);
      } catch (...) {
        const std::lock_guard lock(mail.mutex);
        if (mail.failed < 0) mail.failed = r, cause = std::current_exception();
      }
      mail.changed.notify_all();
    });
  for (std::thread& thread : threads) thread.join();
  if (cause) std::rethrow_exception(cause);
}

}  // namespace hadal
