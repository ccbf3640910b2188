#include "hadal/train/rank_sum.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "hadal/base/check.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using Part = ShardLayout::Part;

float* floats(const Tensor& x) {
  return static_cast<float*>(x.data_ptr());
}

// Losses as numbers, not text: doubles go bit for bit.
class Packer {
 public:
  void number(double x) { bytes_.append(reinterpret_cast<const char*>(&x), sizeof x); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};
class Unpacker {
 public:
  explicit Unpacker(const std::string& bytes) : bytes_(bytes) {}
  double number() {
    double x = 0;
    HADAL_CHECK(at_ + sizeof x <= bytes_.size()) << "a rank's numbers are cut short";
    std::memcpy(&x, bytes_.data() + at_, sizeof x);
    at_ += sizeof x;
    return x;
  }
  int64_t count() { return static_cast<int64_t>(number()); }
  bool done() const { return at_ == bytes_.size(); }

 private:
  const std::string& bytes_;
  size_t at_ = 0;
};

void pack(Packer& out, const StepLoss& loss) {
  for (const double x : {loss.total, loss.main, loss.balance}) out.number(x);
  out.number(static_cast<double>(loss.mtp.size()));
  for (const double x : loss.mtp) out.number(x);
  out.number(static_cast<double>(loss.loads.size()));
  for (const ExpertLoad& load : loss.loads) {
    const std::vector<int64_t> counts = to_ints(load.count_E);
    out.number(static_cast<double>(load.layer)), out.number(static_cast<double>(counts.size()));
    for (const int64_t count : counts) out.number(static_cast<double>(count));  // below 2^53
  }
}

StepLoss unpack(Unpacker& in) {
  StepLoss loss;
  loss.total = in.number(), loss.main = in.number(), loss.balance = in.number();
  loss.mtp.resize(static_cast<size_t>(in.count()));
  for (double& x : loss.mtp) x = in.number();
  loss.loads.resize(static_cast<size_t>(in.count()));
  for (ExpertLoad& load : loss.loads) {
    load.layer = in.count();
    std::vector<int64_t> counts(static_cast<size_t>(in.count()));
    for (int64_t& count : counts) count = in.count();
    load.count_E = from_ints(counts);
  }
  return loss;
}

// What another rank knows of the same slot: nothing of it is there twice.
void join(StepLoss& loss, StepLoss&& other) {
  loss.total += other.total, loss.main += other.main, loss.balance += other.balance;
  if (loss.mtp.empty()) loss.mtp = std::move(other.mtp);
  for (ExpertLoad& load : other.loads) loss.loads.push_back(std::move(load));
  std::sort(loss.loads.begin(), loss.loads.end(),
            [](const ExpertLoad& a, const ExpertLoad& b) { return a.layer < b.layer; });
}

// What ranks tell each other of a piece of the sum before its numbers: of which slots it is, and which
// weights it has a gradient of.
struct PieceHead {
  int64_t first, last;
  std::string defined;  // '1' or '0' for each weight
};
std::string packed_heads(const std::vector<TreeSum<Gradients>::Piece>& pieces) {
  std::string out;
  for (const auto& piece : pieces) {
    const int64_t range[] = {piece.first, piece.last};
    out.append(reinterpret_cast<const char*>(range), sizeof range);
    for (const Tensor& g : piece.value) out += g.defined() ? '1' : '0';
  }
  return out;
}
std::vector<PieceHead> unpacked_heads(const std::string& bytes, int64_t tensors) {
  std::vector<PieceHead> heads;
  int64_t range[2];
  const size_t flags = static_cast<size_t>(tensors), size = sizeof range + flags;
  HADAL_CHECK(bytes.size() % size == 0) << "a rank has other weights";
  for (size_t at = 0; at < bytes.size(); at += size) {
    std::memcpy(range, bytes.data() + at, sizeof range);
    heads.push_back({range[0], range[1], bytes.substr(at + sizeof range, flags)});
  }
  return heads;
}

// Of one piece the gradients of this rank's parts, wherever they are; null: it has none.
using PartPointers = std::vector<float*>;

void add(const std::vector<Part>& parts, PartPointers& sum, PartPointers&& piece) {
  for (size_t p = 0; p < parts.size(); ++p) {
    if (!piece[p]) continue;
    if (!sum[p]) {
      sum[p] = piece[p];
    } else {
      for (int64_t i = 0; i < parts[p].size(); ++i) sum[p][i] += piece[p][i];
    }
  }
}

constexpr auto kFloat = static_cast<int64_t>(sizeof(float));

// The pieces of all ranks, of this rank's parts.
struct Exchanged {
  std::vector<TreeSum<Gradients>::Piece> own;                    // of all parts
  std::vector<Tensor> from_others;                               // the memory of theirs
  std::map<int64_t, std::pair<int64_t, PartPointers>> in_order;  // first slot -> last one's end, gradients
};

Exchanged exchange_pieces(Comm& comm, const ShardLayout& layout, TreeSum<Gradients>& mine) {
  Exchanged all{.own = std::move(mine.pieces())};
  for (auto& piece : all.own)
    for (Tensor& g : piece.value)
      if (g.defined()) g = g.contiguous();
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  const int64_t me = comm.rank();
  const auto heads = all_gather_bytes(comm, packed_heads(all.own));
  for (int64_t r = 0; r < comm.size(); ++r) {
    if (r == me) continue;
    for (const auto& piece : all.own)
      for (const Part& part : layout.parts(r))
        if (const Tensor& g = piece.value[static_cast<size_t>(part.tensor)]; g.defined())
          out.push_back({r, floats(g) + part.begin, part.size() * kFloat});
    for (const PieceHead& head : unpacked_heads(heads[static_cast<size_t>(r)], layout.num_tensors())) {
      all.from_others.push_back(empty({layout.flat_size(me)}));
      PartPointers of;
      for (const Part& part : layout.parts(me)) {
        const bool there = head.defined[static_cast<size_t>(part.tensor)] == '1';
        of.push_back(there ? floats(all.from_others.back()) + part.offset : nullptr);
        if (there) in.push_back({r, of.back(), part.size() * kFloat});
      }
      all.in_order[head.first] = {head.last, std::move(of)};
    }
  }
  comm.exchange(out, in);
  for (const auto& piece : all.own) {
    PartPointers of;
    for (const Part& part : layout.parts(me)) {
      const Tensor& g = piece.value[static_cast<size_t>(part.tensor)];
      of.push_back(g.defined() ? floats(g) + part.begin : nullptr);
    }
    all.in_order[piece.first] = {piece.last, std::move(of)};
  }
  return all;
}

// Of this rank's parts, in the memory of one of the pieces.
PartPointers sum_in_order(const Exchanged& all, const std::vector<Part>& parts, int64_t num_terms) {
  TreeSum<PartPointers> sum(num_terms,
                            [&](PartPointers& a, PartPointers&& b) { add(parts, a, std::move(b)); });
  for (const auto& [first, piece] : all.in_order) sum.push(first, piece.first, piece.second);
  HADAL_CHECK(sum.pieces().size() == 1) << "gradients of a slot are missing";
  return std::move(sum.pieces().front().value);
}

Tensor view_of(const Tensor& whole, const Part& part) {
  return whole.view({-1}).narrow(0, part.begin, part.size());
}

}  // namespace

StepLoss sum_losses(Comm& comm, int64_t first, const std::vector<StepLoss>& mine) {
  Packer packed;
  packed.number(static_cast<double>(first));
  for (const StepLoss& loss : mine) pack(packed, loss);
  std::map<int64_t, StepLoss> slots;
  for (const std::string& bytes : all_gather_bytes(comm, packed.bytes())) {
    Unpacker in(bytes);
    for (int64_t slot = in.count(); !in.done(); ++slot) join(slots[slot], unpack(in));
  }
  StepLoss sum;
  for (const auto& [slot, loss] : slots) add(sum, loss);
  return sum;
}

std::vector<double> gather_numbers(Comm& comm, const std::vector<double>& mine) {
  std::vector<double> numbers;
  for (const std::string& bytes :
       all_gather_bytes(comm, {reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(double)})) {
    const size_t at = numbers.size();
    numbers.resize(at + bytes.size() / sizeof(double));
    std::memcpy(numbers.data() + at, bytes.data(), bytes.size());
  }
  return numbers;
}

std::vector<Tensor> sum_gradients(Comm& comm, const ShardLayout& layout, TreeSum<Gradients>& mine) {
  const std::vector<Part>& parts = layout.parts(comm.rank());
  const Exchanged all = exchange_pieces(comm, layout, mine);
  const PartPointers total = sum_in_order(all, parts, mine.num_terms());
  std::vector<Tensor> result(parts.size());
  for (size_t p = 0; p < parts.size(); ++p) {
    if (!total[p]) continue;
    result[p] = empty({parts[p].size()});
    std::copy_n(total[p], parts[p].size(), floats(result[p]));
  }
  return result;
}

std::vector<Tensor> whole_sum_of_gradients(Comm& comm, const ShardLayout& layout, TreeSum<Gradients>& mine) {
  const std::vector<Part>& parts = layout.parts(comm.rank());
  std::vector<Tensor> whole(static_cast<size_t>(layout.num_tensors())), views(parts.size());
  Exchanged all = exchange_pieces(comm, layout, mine);
  const PartPointers total = sum_in_order(all, parts, mine.num_terms());
  if (!all.own.empty()) whole = all.own.front().value;  // its memory: what it held is in the sum
  for (size_t p = 0; p < parts.size(); ++p) {
    if (!total[p]) continue;
    Tensor& into = whole[static_cast<size_t>(parts[p].tensor)];
    if (!into.defined()) into = empty({layout.tensor_size(parts[p].tensor)});
    views[p] = view_of(into, parts[p]);
    if (floats(views[p]) != total[p]) std::copy_n(total[p], parts[p].size(), floats(views[p]));
  }
  all = {};
  gather_parts(comm, layout, views, whole);
  return whole;
}

void gather_parts(Comm& comm, const ShardLayout& layout, const std::vector<Tensor>& parts,
                  std::vector<Tensor>& whole) {
  NoGrad no_grad;
  std::string mine;
  for (const Tensor& part : parts) mine += part.defined() ? '1' : '0';
  const std::vector<std::string> defined = all_gather_bytes(comm, mine);
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  for (int64_t r = 0; r < comm.size(); ++r)
    for (size_t i = 0; i < layout.parts(r).size(); ++i) {
      if (defined[static_cast<size_t>(r)][i] == '0') continue;
      const Part& part = layout.parts(r)[i];
      Tensor& into = whole[static_cast<size_t>(part.tensor)];
      if (!into.defined()) into = empty({layout.tensor_size(part.tensor)});
      const int64_t element = static_cast<int64_t>(into.element_size()), bytes = part.size() * element;
      auto* const place = static_cast<char*>(into.data_ptr()) + part.begin * element;
      if (r != comm.rank()) {
        in.push_back({r, place, bytes});
        continue;
      }
      const void* from = parts[i].data_ptr();
      if (from != place) std::memcpy(place, from, static_cast<size_t>(bytes));
      for (int64_t other = 0; other < comm.size(); ++other)
        if (other != r) out.push_back({other, place, bytes});
    }
  comm.exchange(out, in);
}

void share_weights(Comm& comm, AdamW& optimizer) {
  NoGrad no_grad;
  std::vector<Tensor> parts, whole;
  for (const TrainedWeight& weight : optimizer.weights()) whole.push_back(weight.values.detach());
  for (const Part& part : optimizer.layout().parts(comm.rank()))
    parts.push_back(view_of(whole[static_cast<size_t>(part.tensor)], part));
  gather_parts(comm, optimizer.layout(), parts, whole);
}

std::vector<AdamW::Moments> gather_moments(Comm& comm, AdamW& optimizer) {
  std::vector<AdamW::Moments> all;
  std::vector<Tensor> m, v, whole_m, whole_v;
  for (AdamW::Moments& part : optimizer.moments()) m.push_back(part.m), v.push_back(part.v);
  for (const TrainedWeight& weight : optimizer.weights()) {
    const auto type = optimizer.moment_type();
    all.push_back({weight.name, weight.shape, 0, empty(weight.shape, type), empty(weight.shape, type)});
    whole_m.push_back(all.back().m), whole_v.push_back(all.back().v);
  }
  gather_parts(comm, optimizer.layout(), m, whole_m);
  gather_parts(comm, optimizer.layout(), v, whole_v);
  if (comm.rank() != 0) all.clear();
  return all;
}

}  // namespace hadal
