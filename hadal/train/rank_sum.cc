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

// One piece's gradients of some rank's parts, one after the other.
struct FlatPiece {
  float* data;
  std::string defined;
};

void copy_parts(const std::vector<Part>& parts, const Gradients& gradients, float* to) {
  for (const Part& part : parts) {
    const Tensor& g = gradients[static_cast<size_t>(part.tensor)];
    if (g.defined()) std::copy_n(floats(g) + part.begin, part.size(), to + part.offset);
  }
}

void add(const std::vector<Part>& parts, FlatPiece& sum, FlatPiece&& piece) {
  for (const Part& part : parts) {
    const auto t = static_cast<size_t>(part.tensor);
    if (piece.defined[t] == '0') continue;
    float *to = sum.data + part.offset, *from = piece.data + part.offset;
    if (sum.defined[t] == '1') {
      for (int64_t i = 0; i < part.size(); ++i) to[i] += from[i];
    } else {
      std::copy_n(from, part.size(), to);
    }
  }
  for (size_t t = 0; t < sum.defined.size(); ++t)
    if (piece.defined[t] == '1') sum.defined[t] = '1';
}

constexpr auto kFloat = static_cast<int64_t>(sizeof(float));

}  // namespace

int64_t first_slot(int64_t num_slots, int64_t rank, int64_t ranks) {
  return num_slots * rank / ranks;
}

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
  const int64_t me = comm.rank(), D = comm.size();
  auto& own = mine.pieces();
  for (auto& piece : own)
    for (Tensor& g : piece.value)
      if (g.defined()) g = g.contiguous();
  std::vector<std::vector<PieceHead>> heads;
  for (const std::string& bytes : all_gather_bytes(comm, packed_heads(own)))
    heads.push_back(unpacked_heads(bytes, layout.num_tensors()));

  // To each rank my pieces of its parts; from each rank its pieces of mine.
  std::vector<Tensor> sent, received;
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  for (int64_t r = 0; r < D; ++r) {
    const int64_t n = static_cast<int64_t>(own.size()) * layout.flat_size(r);
    sent.push_back(zeros({n}));
    for (size_t p = 0; p < own.size(); ++p)
      copy_parts(layout.parts(r), own[p].value,
                 floats(sent.back()) + static_cast<int64_t>(p) * layout.flat_size(r));
    const int64_t from = static_cast<int64_t>(heads[static_cast<size_t>(r)].size()) * layout.flat_size(me);
    received.push_back(r == me ? sent.back() : empty({from}));
    if (r == me) continue;
    if (n > 0) out.push_back({r, sent.back().data_ptr(), n * kFloat});
    if (from > 0) in.push_back({r, received.back().data_ptr(), from * kFloat});
  }
  own.clear();
  comm.exchange(out, in);

  const std::vector<Part>& parts = layout.parts(me);
  TreeSum<FlatPiece> sum(mine.num_terms(), [&](FlatPiece& a, FlatPiece&& b) { add(parts, a, std::move(b)); });
  std::map<int64_t, std::pair<const PieceHead*, float*>> in_order;  // by the first slot
  for (size_t r = 0; r < heads.size(); ++r)
    for (size_t p = 0; p < heads[r].size(); ++p)
      in_order[heads[r][p].first] = {&heads[r][p],
                                     floats(received[r]) + static_cast<int64_t>(p) * layout.flat_size(me)};
  for (const auto& [first, piece] : in_order)
    sum.push(first, piece.first->last, {piece.second, piece.first->defined});
  HADAL_CHECK(sum.pieces().size() == 1) << "gradients of a slot are missing";
  const FlatPiece& total = sum.pieces().front().value;
  std::vector<Tensor> result;
  for (const Part& part : parts) {
    result.emplace_back();
    if (total.defined[static_cast<size_t>(part.tensor)] == '0') continue;
    result.back() = empty({part.size()});
    std::copy_n(total.data + part.offset, part.size(), floats(result.back()));
  }
  return result;
}

void gather_parts(Comm& comm, const ShardLayout& layout, const std::vector<Tensor>& parts,
                  std::vector<Tensor>& whole) {
  NoGrad no_grad;
  std::string mine;  // a flag each, then what is there
  for (const Tensor& part : parts) mine += part.defined() ? '1' : '0';
  for (const Tensor& part : parts)
    if (part.defined()) mine.append(static_cast<const char*>(part.data_ptr()), part.nbytes());
  const std::vector<std::string> all = all_gather_bytes(comm, mine);
  for (int64_t r = 0; r < comm.size(); ++r) {
    const std::string& bytes = all[static_cast<size_t>(r)];
    size_t at = layout.parts(r).size();
    for (size_t i = 0; i < layout.parts(r).size(); ++i) {
      if (bytes[i] == '0') continue;
      const Part& part = layout.parts(r)[i];
      Tensor& into = whole[static_cast<size_t>(part.tensor)];
      if (!into.defined()) into = empty({layout.tensor_size(part.tensor)});
      const auto element = into.element_size();
      const auto n = static_cast<size_t>(part.size() * element);
      std::memcpy(static_cast<char*>(into.data_ptr()) + part.begin * element, bytes.data() + at, n);
      at += n;
    }
  }
}

void share_weights(Comm& comm, AdamW& optimizer) {
  NoGrad no_grad;
  std::vector<Tensor> parts, whole;
  for (const TrainedWeight& weight : optimizer.weights()) whole.push_back(weight.values.detach());
  for (const Part& part : optimizer.layout().parts(comm.rank()))
    parts.push_back(whole[static_cast<size_t>(part.tensor)].view({-1}).narrow(0, part.begin, part.size()));
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
