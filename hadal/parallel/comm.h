// How the ranks of a job talk to each other: one primitive, and what is built on it. Memory in, memory out;
// torch-free.
//
// All ranks call the same operations in the same order. Sums are taken in a tree over the ranks that depends
// on their number alone (tree_sum.h), so a result is the same bits on every rank, every time.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

struct Outgoing {
  int64_t to;
  const void* data;
  int64_t bytes;
};
struct Incoming {
  int64_t from;
  void* data;
  int64_t bytes;
};

// Messages on their way, of Comm::begin_send().
class Sending {
 public:
  virtual ~Sending() = default;
  virtual bool done() = 0;  // does not wait
  virtual void wait() = 0;  // throws PeerLost
};

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;
  // Posts all, then waits for all. Messages between two ranks arrive in the order they were sent; both sides
  // know their sizes. None to oneself. Throws PeerLost.
  virtual void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) = 0;
  // Posts and does not wait: what is sent must stay as it is until done() or wait(). The receivers take it by
  // exchange(), in order with all else that this rank sends them.
  virtual std::unique_ptr<Sending> begin_send(std::span<const Outgoing> out) = 0;
};

// all[r * bytes ...] = what rank r gave.
void all_gather(Comm& comm, const void* mine, int64_t bytes, void* all);
std::vector<std::string> all_gather_bytes(Comm& comm, std::string_view mine);  // of any lengths
void broadcast(Comm& comm, void* data, int64_t bytes, int64_t root);
std::string broadcast_bytes(Comm& comm, std::string_view from_root, int64_t root);
// Returns when every rank has come here.
void barrier(Comm& comm);
void send(Comm& comm, int64_t to, const void* data, int64_t bytes);
void receive(Comm& comm, int64_t from, void* data, int64_t bytes);

// In place, on every rank the sum over the ranks. Each rank adds a part and hands it round: a rank sends and
// receives twice its data, however many ranks there are.
void all_reduce(Comm& comm, std::span<float> values);
int64_t sum_over_ranks(Comm& comm, int64_t value);
bool any_rank(Comm& comm, bool value);

// Throws invalid_argument on every rank, naming the first rank that holds another text than rank 0, and the
// first line that differs.
void require_same(Comm& comm, const std::string& what, std::string_view text);

// `size` ranks as threads of this process, for tests. When one throws, the others' waits end with PeerLost;
// the first cause is thrown here once all have ended. A wait lasts at most `timeout_seconds`.
void run_ranks(int64_t size, const std::function<void(Comm&)>& body, double timeout_seconds = 60);

}  // namespace hadal
