#include "hadal/train/pipeline_stages.h"

#include <algorithm>
#include <cstring>

#include "hadal/base/check.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

void append(Packet& packet, const Tensor& x) {
  const Tensor values = x.detach().contiguous();
  const float* from = static_cast<const float*>(values.data_ptr());
  packet.insert(packet.end(), from, from + values.numel());
}

Tensor next(const Packet& packet, size_t& at, const std::vector<int64_t>& shape) {
  const Tensor x = hadal::empty(shape);
  HADAL_CHECK(at + static_cast<size_t>(x.numel()) <= packet.size());
  std::memcpy(x.data_ptr(), packet.data() + at, x.nbytes());
  at += static_cast<size_t>(x.numel());
  return x;
}

StepLoss numbers_of(const BatchLoss& loss) {
  StepLoss numbers{.total = loss.total.item<double>(),
                   .main = loss.main.item<double>(),
                   .balance = loss.balance.item<double>()};
  for (const Tensor& mtp : loss.mtp) numbers.mtp.push_back(mtp.item<double>());
  return numbers;
}

}  // namespace

std::vector<StageLink> stage_links(const ModelConfig& config, int stages) {
  std::vector<StageLink> links;
  for (int s = 0; s + 1 < stages; ++s) links.push_back({s, s + 1});
  if (config.mtp_depth > 0 && stages > 1) links.push_back({0, stages - 1, /*past=*/true});
  return links;
}

int64_t FlowShape::floats(const StageLink& link, bool back) const {
  const int64_t one = rows * length * width;
  return link.past ? ahead * one : one + (back ? 0 : 1);
}

std::vector<Tensor> FlowShape::tensors(const Packet& packet, int64_t n) const {
  std::vector<Tensor> tensors;
  size_t at = 0;
  while (std::ssize(tensors) < n) tensors.push_back(next(packet, at, hidden()));
  return tensors;
}

StageFlow FlowShape::unpack(const Stage& stage, const std::vector<Packet>& in) const {
  StageFlow flow;
  if (stage.has_embedding) return flow;
  size_t at = 0;
  flow.hidden_BTD = next(in[0], at, hidden());
  flow.balance = next(in[0], at, {});
  if (stage.has_head && ahead > 0) flow.ahead_BTD = tensors(in[1], ahead);
  return flow;
}

std::vector<Packet> FlowShape::pack(const Stage& stage, const StageFlow& flow) {
  std::vector<Packet> out;
  if (stage.has_head) return out;
  append(out.emplace_back(), flow.hidden_BTD);
  append(out[0], flow.balance);
  if (!stage.has_embedding || flow.ahead_BTD.empty()) return out;
  out.emplace_back();
  for (const Tensor& ahead_BTD : flow.ahead_BTD) append(out[1], ahead_BTD);
  return out;
}

PipelineStages::PipelineStages(const std::vector<Stage>& stages, const std::vector<int>& held,
                               std::vector<Transformer>& replicas, const RankSlots& slots,
                               const LossConfig& config, const LossDivisor& divisor)
    : stages_(stages),
      held_(held),
      replicas_(replicas),
      slots_(slots),
      config_(config),
      divisor_(divisor),
      losses_(static_cast<size_t>(slots.size(slots.rank))),
      threads_(num_threads()) {
  for (const Transformer& replica : replicas_) sums_.emplace_back(replica, slots_);
}

std::vector<TreeSum<Gradients>> PipelineStages::take_sums() {
  std::vector<TreeSum<Gradients>> all;
  for (SlotSums& sums : sums_)
    for (TreeSum<Gradients>& sum : sums.take()) all.push_back(std::move(sum));
  return all;
}

// One where a worker of one process would have one, so that sums are the same.
void PipelineStages::use_threads(int microbatch) const {
  const RowSlot* slot = slots_.at(microbatch);
  set_num_threads(slot && !slot->alone ? 1 : threads_);
}

size_t PipelineStages::part_of(int stage) const {
  const auto found = std::find(held_.begin(), held_.end(), stage);
  HADAL_CHECK(found != held_.end()) << "stage " << stage << " is not on this rank";
  return static_cast<size_t>(found - held_.begin());
}

FlowShape PipelineStages::shape(int microbatch) const {
  const ModelConfig& c = replicas_.front().config();
  const RowSlot* slot = slots_.at(microbatch);
  return {slot ? slot->rows : 0, slots_.batch.window_BX.size(1) - 1 - c.mtp_depth, c.width, c.mtp_depth};
}

std::vector<Packet> PipelineStages::forward(int stage, int microbatch, std::vector<Packet> in) {
  use_threads(microbatch);
  const Stage& what = stages_[static_cast<size_t>(stage)];
  Live& live = live_[{stage, microbatch}];
  live.in = shape(microbatch).unpack(what, in);
  if (live.in.hidden_BTD.defined()) live.in.hidden_BTD.requires_grad_(true);
  for (Tensor& ahead_BTD : live.in.ahead_BTD) ahead_BTD.requires_grad_(true);
  StageLoss result =
      stage_loss(replicas_[part_of(stage)], what, slots_.rows(microbatch), live.in, config_, divisor_);
  if (slots_.at(microbatch)) {
    StepLoss& numbers = losses_[static_cast<size_t>(microbatch)];
    if (what.has_head) add(numbers, numbers_of(result.loss));
    numbers.loads.insert(numbers.loads.end(), result.loss.loads.begin(), result.loss.loads.end());
  }
  live.end = what.has_head ? result.loss.total : result.loss.balance;
  live.out = std::move(result.out);
  return FlowShape::pack(what, live.out);
}

std::vector<Packet> PipelineStages::backward(int stage, int microbatch, std::vector<Packet> gradients,
                                             bool input_only) {
  use_threads(microbatch);
  Live& live = live_.at({stage, microbatch});
  std::vector<Tensor> ends, of_ends;
  if (live.end.requires_grad()) ends.push_back(live.end), of_ends.push_back(full({}, 1));
  if (!gradients.empty()) ends.push_back(live.out.hidden_BTD);
  if (gradients.size() > 1) ends.insert(ends.end(), live.out.ahead_BTD.begin(), live.out.ahead_BTD.end());
  for (size_t link = 0; link < gradients.size(); ++link)  // the chain's, then the one past it
    for (Tensor& gradient :
         shape(microbatch).tensors(gradients[link], link == 0 ? 1 : std::ssize(live.out.ahead_BTD)))
      of_ends.push_back(gradient);
  if (input_only) {
    const WeightGradients::PutOff scope(live.later);
    hadal::backward(ends, of_ends);
  } else {
    hadal::backward(ends, of_ends);
  }
  live.gradients = take_gradients(replicas_[part_of(stage)]);
  std::vector<Packet> out;
  if (live.in.hidden_BTD.defined()) append(out.emplace_back(), live.in.hidden_BTD.grad());
  if (!live.in.ahead_BTD.empty()) out.emplace_back();
  for (const Tensor& ahead_BTD : live.in.ahead_BTD) append(out[1], ahead_BTD.grad());
  live.in = live.out = StageFlow(), live.end = Tensor();  // the graph goes; what is put off keeps its own
  if (!input_only) finish(stage, microbatch);
  return out;
}

void PipelineStages::weight_gradients(int stage, int microbatch) {
  use_threads(microbatch);
  Live& live = live_.at({stage, microbatch});
  live.later.run();
  add(live.gradients, take_gradients(replicas_[part_of(stage)]));
  finish(stage, microbatch);
}

void PipelineStages::finish(int stage, int microbatch) {
  auto live = live_.extract({stage, microbatch});
  sums_[part_of(stage)].push(microbatch, std::move(live.mapped().gradients));
}

}  // namespace hadal
