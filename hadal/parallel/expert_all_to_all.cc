#include "hadal/parallel/expert_all_to_all.h"

#include <algorithm>
#include <cstring>

#include "hadal/base/check.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using Ints = std::vector<int64_t>;

const int64_t* longs(const Tensor& x) {
  return static_cast<const int64_t*>(x.data_ptr());
}

// What one rank sends to, or gets from, each rank: `first[r]` is the first of the rows of rank r, one more at
// the end.
Ints first_of(const Ints& counts) {
  Ints first{0};
  for (const int64_t count : counts) first.push_back(first.back() + count);
  return first;
}

// Rows [from[r], from[r + 1]) of `out` go to rank r; what comes from rank r fills rows [into[r], ...) of
// `in`.
struct Transfer {
  const Tensor &out, &in;
  const Ints &from, &into;
};

void move(Comm& comm, const std::vector<Transfer>& transfers) {
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  for (const Transfer& t : transfers) {
    const auto row_bytes = [](const Tensor& x) {
      return (x.dim() > 1 ? x.size(1) : 1) * static_cast<int64_t>(x.element_size());
    };
    const int64_t bytes = row_bytes(t.in);
    HADAL_CHECK(t.out.is_contiguous() && row_bytes(t.out) == bytes);
    const auto* source = static_cast<const char*>(t.out.data_ptr());
    auto* target = static_cast<char*>(t.in.data_ptr());
    for (int64_t r = 0; r < comm.size(); ++r) {
      const auto i = static_cast<size_t>(r);
      const int64_t sent = (t.from[i + 1] - t.from[i]) * bytes, got = (t.into[i + 1] - t.into[i]) * bytes;
      if (r == comm.rank()) {
        HADAL_CHECK(sent == got);
        if (sent > 0)
          std::memcpy(target + t.into[i] * bytes, source + t.from[i] * bytes, static_cast<size_t>(sent));
        continue;
      }
      if (sent > 0) out.push_back({r, source + t.from[i] * bytes, sent});
      if (got > 0) in.push_back({r, target + t.into[i] * bytes, got});
    }
  }
  comm.exchange(out, in);
}

class Route : public ExpertRoute {
 public:
  Route(Comm& comm, const ExpertOrder& order, const Tensor& weight_TA) : comm_(comm) {
    const auto R = static_cast<size_t>(comm.size());
    const size_t E = order.begin_E.size() - 1, e = E / R;
    HADAL_CHECK(E % R == 0) << E << " experts on " << R << " ranks";
    const Tensor row_U = choose_rows(order, weight_TA.size(0), e);
    const Tensor counts = exchange_counts(order, e);
    Tensor rows = empty({copies_here_.back()}, at::kLong);
    weight_V = empty({copies_here_.back()});
    move(comm_, {{row_U, rows, copies_home_, copies_here_},
                 {weight_by_row(order, weight_TA), weight_V, copies_home_, copies_here_}});
    // A sender counts its rows from 0.
    for (size_t r = 0; r < R; ++r)
      rows.narrow(0, copies_here_[r], copies_here_[r + 1] - copies_here_[r]).add_(rows_here_[r]);
    row_V = rows;
    begin = {0};
    for (size_t r = 0; r < R; ++r)
      for (size_t i = 0; i < e; ++i) begin.push_back(begin.back() + longs(counts)[r * (e + 1) + 1 + i]);
  }

  Tensor dispatch(const Tensor& row_TY) const override {
    const Tensor out = row_TY.index_select(0, token_), in = empty({rows_here_.back(), row_TY.size(1)});
    move(comm_, {{out, in, rows_home_, rows_here_}});
    return in;
  }

  std::vector<Tensor> combine(const std::vector<Tensor>& rows) const override {
    std::vector<Tensor> home;
    for (const Tensor& each : rows) home.push_back(empty({copies_home_.back(), each.size(1)}));
    std::vector<Transfer> transfers;
    for (size_t i = 0; i < rows.size(); ++i)
      transfers.push_back({rows[i], home[i], copies_here_, copies_home_});
    move(comm_, transfers);
    return home;
  }

 private:
  // Fills token_, rows_home_ and copies_home_: which token's row each rank gets, once. Returns the row, of
  // those for its rank, of each copy in the order of `order`.
  Tensor choose_rows(const ExpertOrder& order, int64_t T, size_t e) {
    const auto R = static_cast<size_t>(comm_.size());
    const Tensor row_U = empty(order.token_U.sizes(), at::kLong);
    auto* row = static_cast<int64_t*>(row_U.data_ptr());
    Ints tokens, counts;
    copies_home_ = {0};
    for (size_t r = 0; r < R; ++r) {
      const int64_t first = order.begin_E[r * e], last = order.begin_E[(r + 1) * e];
      copies_home_.push_back(last);
      Ints place(static_cast<size_t>(T), -1);
      for (int64_t u = first; u < last; ++u) place[static_cast<size_t>(longs(order.token_U)[u])] = 0;
      int64_t count = 0;
      for (int64_t t = 0; t < T; ++t)
        if (place[static_cast<size_t>(t)] == 0) place[static_cast<size_t>(t)] = count++, tokens.push_back(t);
      for (int64_t u = first; u < last; ++u) row[u] = place[static_cast<size_t>(longs(order.token_U)[u])];
      counts.push_back(count);
    }
    token_ = from_ints(tokens);
    rows_home_ = first_of(counts);
    return row_U;
  }

  // Fills rows_here_ and copies_here_. Returns from each rank: its rows for this one, its copies for each
  // expert here.
  Tensor exchange_counts(const ExpertOrder& order, size_t e) {
    const auto R = static_cast<size_t>(comm_.size());
    Ints mine;
    for (size_t r = 0; r < R; ++r) {
      mine.push_back(rows_home_[r + 1] - rows_home_[r]);
      for (size_t i = r * e; i < (r + 1) * e; ++i) mine.push_back(order.begin_E[i + 1] - order.begin_E[i]);
    }
    const Tensor all = empty({static_cast<int64_t>(mine.size())}, at::kLong);
    const Ints first = first_of(Ints(R, static_cast<int64_t>(e + 1)));
    move(comm_, {{from_ints(mine), all, first, first}});
    Ints rows, copies;
    for (size_t r = 0; r < R; ++r) {
      const int64_t* count = longs(all) + r * (e + 1);
      rows.push_back(count[0]);
      copies.push_back(0);
      for (size_t i = 1; i <= e; ++i) copies.back() += count[i];
    }
    rows_here_ = first_of(rows), copies_here_ = first_of(copies);
    return all;
  }

  Comm& comm_;
  Tensor token_;  // of each row that goes out, by rank
  // Home: of this process's tokens; here: of those its experts work on.
  Ints rows_home_, rows_here_, copies_home_, copies_here_;
};

}  // namespace

std::shared_ptr<const ExpertRoute> ExpertAllToAll::route(const ExpertOrder& order, const Tensor& weight_TA) {
  return std::make_shared<Route>(comm_, order, weight_TA);
}

}  // namespace hadal
