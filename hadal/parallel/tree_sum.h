// A sum whose tree is fixed by the positions of its terms alone (training spec 14.3). Torch-free.
//
// Of n terms the tree has a node for every aligned block of a power of two, the last ones cut off at n.
// Whoever holds a range of terms adds up the nodes within it; the pieces of neighbours, put together in
// order, give the same sum bit for bit however the terms were dealt out.
#pragma once
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace hadal {

template <class Value>
class TreeSum {
 public:
  struct Piece {
    int64_t first, last;  // terms [first, last)
    Value value;
  };

  // Of n terms. add(Value& left, Value&& right): left += right.
  template <class Add>
  TreeSum(int64_t n, Add add) : n_(n), add_(std::move(add)) {}

  // Terms [first, last), one or a node of the tree, in ascending order of all that are pushed.
  void push(int64_t first, int64_t last, Value value) {
    pieces_.push_back({first, last, std::move(value)});
    while (pieces_.size() >= 2 && is_node(pieces_[pieces_.size() - 2], pieces_.back())) {
      Piece right = std::move(pieces_.back());
      pieces_.pop_back();
      add_(pieces_.back().value, std::move(right.value));
      pieces_.back().last = right.last;
    }
  }

  // What could not be added up here; one piece if all n terms were pushed.
  std::vector<Piece>& pieces() { return pieces_; }
  int64_t num_terms() const { return n_; }

 private:
  bool is_node(const Piece& left, const Piece& right) const {
    const int64_t width = left.last - left.first, begin = left.first;
    return right.first == left.last && (width & (width - 1)) == 0 && begin % (2 * width) == 0 &&
           right.last == (begin + 2 * width < n_ ? begin + 2 * width : n_);
  }

  int64_t n_;
  std::function<void(Value&, Value&&)> add_;
  std::vector<Piece> pieces_;
};

}  // namespace hadal
