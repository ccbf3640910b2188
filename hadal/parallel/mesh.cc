#include "hadal/parallel/mesh.h"

#include <algorithm>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "[parallel.mesh] " + what);
}

void check_shape(const MeshShape& shape) {
  for (const int64_t n : {shape.pipeline, shape.data, shape.experts, shape.tensor})
    if (n < 1)
      fail(cat("pipeline ", shape.pipeline, ", data ", shape.data, ", experts ", shape.experts, ", tensor ",
               shape.tensor, ": need at least 1 of each."));
  if (shape.data % shape.experts != 0)
    fail(
        cat("experts are spread over ", shape.experts, " of ", shape.data,
            " data ranks, need a number that divides them. Change parallel.experts or the number of ranks."));
}

}  // namespace

MeshShape mesh_shape(int64_t ranks, int64_t pipeline, int64_t experts, int64_t tensor) {
  MeshShape shape{.pipeline = pipeline, .experts = experts, .tensor = tensor};
  const int64_t model = pipeline * tensor;
  if (model < 1 || ranks < model || ranks % model != 0)
    fail(cat(ranks, " ranks are no multiple of pipeline ", pipeline, " x tensor ", tensor, " = ", model,
             ". Start a multiple, or change parallel.pipeline or parallel.tensor."));
  shape.data = ranks / model;
  check_shape(shape);
  return shape;
}

int64_t rank_at(const MeshShape& shape, const MeshPlace& place) {
  return (place.pipeline * shape.data + place.data) * shape.tensor + place.tensor;
}

MeshPlace place_of(const MeshShape& shape, int64_t rank) {
  return {.pipeline = rank / shape.tensor / shape.data,
          .data = rank / shape.tensor % shape.data,
          .tensor = rank % shape.tensor};
}

GroupComm::GroupComm(Comm& parent, std::vector<int64_t> members)
    : parent_(parent), members_(std::move(members)) {
  const auto me = std::find(members_.begin(), members_.end(), parent_.rank());
  HADAL_CHECK(me != members_.end()) << "rank " << parent_.rank() << " is no member of its group";
  rank_ = me - members_.begin();
}

void GroupComm::exchange(std::span<const Outgoing> out, std::span<const Incoming> in) {
  std::vector<Incoming> received(in.begin(), in.end());
  for (Incoming& i : received) i.from = members_[static_cast<size_t>(i.from)];
  parent_.exchange(renumbered(out), received);
}

std::unique_ptr<Sending> GroupComm::begin_send(std::span<const Outgoing> out) {
  return parent_.begin_send(renumbered(out));
}

std::vector<Outgoing> GroupComm::renumbered(std::span<const Outgoing> out) const {
  std::vector<Outgoing> sent(out.begin(), out.end());
  for (Outgoing& o : sent) o.to = members_[static_cast<size_t>(o.to)];
  return sent;
}

std::unique_ptr<Comm> Mesh::group(auto&& belongs) const {
  std::vector<int64_t> members;
  for (int64_t r = 0; r < shape_.ranks(); ++r)
    if (belongs(place_of(shape_, r))) members.push_back(r);
  return std::make_unique<GroupComm>(all_, std::move(members));
}

Mesh::Mesh(Comm& all, const MeshShape& shape) : all_(all), shape_(shape) {
  check_shape(shape);
  if (all.size() != shape.ranks())
    fail(cat("pipeline ", shape.pipeline, " x data ", shape.data, " x tensor ", shape.tensor, " = ",
             shape.ranks(), " ranks, but there are ", all.size(), "."));
  place_ = place_of(shape, all.rank());
  const MeshPlace me = place_;
  const int64_t E = shape.experts;
  pipeline_ = group([&](const MeshPlace& p) { return p.data == me.data && p.tensor == me.tensor; });
  const auto beside = [&](const MeshPlace& p) { return p.pipeline == me.pipeline && p.tensor == me.tensor; };
  data_ = group(beside);
  experts_ = group([&](const MeshPlace& p) { return beside(p) && p.data / E == me.data / E; });
  expert_data_ = group([&](const MeshPlace& p) { return beside(p) && p.data % E == me.data % E; });
  tensor_ = group([&](const MeshPlace& p) { return p.pipeline == me.pipeline && p.data == me.data; });
}

}  // namespace hadal
