#include "hadal/parallel/comm.h"

#include <algorithm>
#include <cstring>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/parallel/tree_sum.h"

namespace hadal {

void all_gather(Comm& comm, const void* mine, int64_t bytes, void* all) {
  if (bytes == 0) return;
  char* const out = static_cast<char*>(all);
  std::vector<Outgoing> send;
  std::vector<Incoming> receive;
  for (int64_t r = 0; r < comm.size(); ++r) {
    if (r == comm.rank()) {
      std::memmove(out + r * bytes, mine, static_cast<size_t>(bytes));
      continue;
    }
    send.push_back({r, mine, bytes});
    receive.push_back({r, out + r * bytes, bytes});
  }
  comm.exchange(send, receive);
}

std::vector<std::string> all_gather_bytes(Comm& comm, std::string_view mine) {
  const auto length = static_cast<int64_t>(mine.size());
  std::vector<int64_t> lengths(static_cast<size_t>(comm.size()));
  all_gather(comm, &length, sizeof length, lengths.data());
  std::vector<std::string> all(lengths.size());
  std::vector<Outgoing> send;
  std::vector<Incoming> receive;
  for (size_t r = 0; r < all.size(); ++r) {
    const auto rank = static_cast<int64_t>(r);
    if (rank == comm.rank()) {
      all[r] = mine;
      continue;
    }
    all[r].resize(static_cast<size_t>(lengths[r]));
    if (length > 0) send.push_back({rank, mine.data(), length});
    if (lengths[r] > 0) receive.push_back({rank, all[r].data(), lengths[r]});
  }
  comm.exchange(send, receive);
  return all;
}

void broadcast(Comm& comm, void* data, int64_t bytes, int64_t root) {
  if (bytes == 0) return;
  if (comm.rank() != root) return receive(comm, root, data, bytes);
  std::vector<Outgoing> out;
  for (int64_t r = 0; r < comm.size(); ++r)
    if (r != root) out.push_back({r, data, bytes});
  comm.exchange(out, {});
}

std::string broadcast_bytes(Comm& comm, std::string_view from_root, int64_t root) {
  auto length = static_cast<int64_t>(from_root.size());
  broadcast(comm, &length, sizeof length, root);
  std::string text(from_root);
  text.resize(static_cast<size_t>(length));
  broadcast(comm, text.data(), length, root);
  return text;
}

void barrier(Comm& comm) {
  any_rank(comm, false);
}

void send(Comm& comm, int64_t to, const void* data, int64_t bytes) {
  const Outgoing out[] = {{to, data, bytes}};
  comm.exchange(out, {});
}

void receive(Comm& comm, int64_t from, void* data, int64_t bytes) {
  const Incoming in[] = {{from, data, bytes}};
  comm.exchange({}, in);
}

void all_reduce(Comm& comm, std::span<float> values) {
  const int64_t D = comm.size(), n = static_cast<int64_t>(values.size());
  const auto begin = [&](int64_t r) { return n * r / D; };
  const auto count = [&](int64_t r) { return begin(r + 1) - begin(r); };
  const int64_t me = comm.rank(), mine = count(me);
  // The others' values of my part, one after the other; then my sum to all.
  std::vector<float> parts(static_cast<size_t>(mine * D));
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  const auto exchange = [&] { comm.exchange(out, in), out.clear(), in.clear(); };
  const auto bytes = [](int64_t floats) { return floats * static_cast<int64_t>(sizeof(float)); };
  for (int64_t r = 0; r < D; ++r) {
    if (r == me) continue;
    if (count(r) > 0) out.push_back({r, values.data() + begin(r), bytes(count(r))});
    if (mine > 0) in.push_back({r, parts.data() + r * mine, bytes(mine)});
  }
  exchange();
  std::copy_n(values.begin() + begin(me), mine, parts.begin() + me * mine);
  TreeSum<float*> sum(D, [mine](float*& left, float*&& right) {
    for (int64_t i = 0; i < mine; ++i) left[i] += right[i];
  });
  for (int64_t r = 0; r < D; ++r) sum.push(r, r + 1, parts.data() + r * mine);
  std::copy_n(sum.pieces().front().value, mine, values.begin() + begin(me));
  for (int64_t r = 0; r < D; ++r) {
    if (r == me) continue;
    if (mine > 0) out.push_back({r, values.data() + begin(me), bytes(mine)});
    if (count(r) > 0) in.push_back({r, values.data() + begin(r), bytes(count(r))});
  }
  exchange();
}

int64_t sum_over_ranks(Comm& comm, int64_t value) {
  std::vector<int64_t> all(static_cast<size_t>(comm.size()));
  all_gather(comm, &value, sizeof value, all.data());
  int64_t sum = 0;
  for (const int64_t each : all) sum += each;
  return sum;
}

bool any_rank(Comm& comm, bool value) {
  return sum_over_ranks(comm, value ? 1 : 0) > 0;
}

namespace {

// The first line of a that is not b's; the whole of a short text.
std::pair<std::string, std::string> first_difference(const std::string& a, const std::string& b) {
  size_t at = 0;
  while (true) {
    const size_t x = std::min(a.find('\n', at), a.size()), y = std::min(b.find('\n', at), b.size());
    const std::string mine = a.substr(at, x - at), yours = b.substr(at, y - at);
    if (mine != yours || x == a.size() || y == b.size()) return {mine, yours};
    at = x + 1;
  }
}

}  // namespace

void require_same(Comm& comm, const std::string& what, std::string_view text) {
  const std::vector<std::string> all = all_gather_bytes(comm, text);
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    const auto [got, need] = first_difference(all[r], all[0]);
    throw Error(ErrorCode::kInvalidArgument,
                cat("[parallel.ranks] ", what, " of rank ", r, " is not that of rank 0: got ", got, ", need ",
                    need, ". Start all ranks alike."));
  }
}

}  // namespace hadal
