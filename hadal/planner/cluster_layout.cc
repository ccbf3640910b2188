#include "hadal/planner/cluster_layout.h"

#include <algorithm>
#include <charconv>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "[plan.layout] " + what);
}

constexpr int64_t kMost = int64_t{1} << 20;  // the product of three is exact

const std::vector<std::string> kKeys = {"pp",     "ep",    "dp",        "tp",   "schedule",
                                        "chunks", "micro", "recompute", "zero1"};

int64_t number_of(const std::string& key, const std::string& value, int64_t least) {
  int64_t n = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
  if (error != std::errc() || end != value.data() + value.size() || n < least || n > kMost)
    refuse(cat(key, "=", value, ": need an integer from ", least, " to ", kMost, "."));
  return n;
}

Recompute recompute_of(const std::string& value) {
  if (const auto recompute = recompute_named(value)) return *recompute;
  refuse(cat("recompute=", value, ": need none, selective or full."));
}

void set(ClusterLayout& layout, const std::string& key, const std::string& value) {
  if (key == "pp") layout.pp = number_of(key, value, 1);
  if (key == "ep") layout.ep = number_of(key, value, 1);
  if (key == "dp") layout.dp = number_of(key, value, 1);
  if (key == "tp") layout.tp = number_of(key, value, 1);
  if (key == "schedule") layout.schedule = schedule_kind(value);
  if (key == "chunks") layout.chunks = number_of(key, value, 1);
  if (key == "micro") layout.micro = number_of(key, value, 1);
  if (key == "recompute") layout.recompute = recompute_of(value);
  if (key == "zero1") layout.zero1 = number_of(key, value, 0) != 0;
}

// The rules of the parts, in words. `need(good, name, text...)` keeps the first that is broken.
class Rules {
 public:
  template <class... Parts>
  void need(bool good, const char* name, const Parts&... parts) {
    if (!good && !broken_) broken_ = BrokenRule{name, cat(parts...)};
  }
  bool all_kept() const { return !broken_; }
  std::optional<BrokenRule> broken() { return std::move(broken_); }

 private:
  std::optional<BrokenRule> broken_;
};

void check_tensor_parallel(Rules& rules, const ModelConfig& c, const ClusterLayout& l,
                           const ClusterFacts& facts) {
  rules.need(c.mla.num_heads % l.tp == 0, "heads divisible by tp", "tp ", l.tp, " cuts ", c.mla.num_heads,
             " heads unevenly: need a divisor of them");
  rules.need(c.dense_dim % l.tp == 0 && c.moe.num_shared * c.moe.expert_dim % l.tp == 0,
             "FFN widths divisible by tp", "tp ", l.tp, " cuts the dense or shared FFN unevenly: widths ",
             c.dense_dim, " and ", c.moe.num_shared * c.moe.expert_dim);
  rules.need(facts.gpus_per_node % l.tp == 0, "tp inside a node", "tp ", l.tp,
             " leaves the node: need a divisor of its ", facts.gpus_per_node, " GPUs");
}

void check_pipeline(Rules& rules, const ClusterJob& job, const ClusterLayout& l) {
  rules.need(l.stages() <= job.model.num_layers, "a layer for every stage", name(l.schedule), " with pp ",
             l.pp, " has ", l.stages(), " stages: need no more than the ", job.model.num_layers, " layers");
  rules.need(job.batch % (l.dp * l.micro) == 0, "batch divisible by dp x micro", "a batch of ", job.batch,
             " sequences: need a multiple of dp ", l.dp, " x micro ", l.micro);
  if (!rules.all_kept()) return;
  try {
    check_schedule(l.schedule, {.ranks = static_cast<int>(l.pp),
                                .microbatches = static_cast<int>(num_microbatches(job, l)),
                                .chunks = static_cast<int>(l.chunks)});
  } catch (const Error& e) {
    std::string what = e.what();  // "[parallel.schedule] ... ."
    what = what.substr(what.find("] ") + 2);
    rules.need(false, "micro-batches that the schedule can have", what.substr(0, what.size() - 1));
  }
}

}  // namespace

int64_t ClusterLayout::stages() const {
  if (schedule == ScheduleKind::kInterleaved) return pp * chunks;
  return schedule == ScheduleKind::kZeroBubbleV || schedule == ScheduleKind::kDualPipeV ? 2 * pp : pp;
}

int64_t num_microbatches(const ClusterJob& job, const ClusterLayout& layout) {
  return job.batch / (layout.dp * layout.micro);
}

ClusterLayout parse_layout(std::string_view text, int64_t gpus) {
  ClusterLayout layout;
  layout.dp = 0;
  std::vector<std::string> seen;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part(text.substr(at, end - at));
    at = end + 1;
    const size_t equals = part.find('=');
    if (equals == std::string::npos)
      refuse(cat("\"", part, "\": need KEY=VALUE parts with commas between, as pp=16,ep=64."));
    const std::string key = part.substr(0, equals);
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end())
      refuse(cat("unknown key \"", key, "\"", did_you_mean(key, kKeys),
                 ". Known: pp, ep, dp, tp, schedule, chunks, micro, recompute, zero1."));
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) refuse(cat(key, " is given twice."));
    seen.push_back(key);
    set(layout, key, part.substr(equals + 1));
  }
  if (layout.dp == 0) layout.dp = std::max<int64_t>(gpus / (layout.pp * layout.tp), 1);
  return layout;
}

std::string text_of(const ClusterLayout& l) {
  return cat("pp=", l.pp, ",ep=", l.ep, ",dp=", l.dp, ",tp=", l.tp, ",schedule=", name(l.schedule),
             l.schedule == ScheduleKind::kInterleaved ? cat(",chunks=", l.chunks) : "", ",micro=", l.micro,
             ",recompute=", name(l.recompute), l.zero1 ? "" : ",zero1=0");
}

std::optional<BrokenRule> broken_rule(const ClusterJob& job, const ClusterLayout& l,
                                      const ClusterFacts& facts) {
  Rules rules;
  const int64_t E = job.model.moe.num_experts;
  rules.need(l.pp * l.dp * l.tp == job.gpus, "pp x dp x tp = gpus", "pp ", l.pp, " x dp ", l.dp, " x tp ",
             l.tp, " = ", l.pp * l.dp * l.tp, " ranks: need the ", job.gpus, " GPUs");
  rules.need(l.dp % l.ep == 0, "ep divides dp", "ep ", l.ep, " does not divide dp ", l.dp,
             ": experts are spread over groups of the data-parallel ranks");
  rules.need(E > 0 || l.ep == 1, "experts divisible by ep", "ep ", l.ep,
             " of a model without experts: need 1");
  rules.need(E == 0 || E % l.ep == 0, "experts divisible by ep", "ep ", l.ep, " shares out ", E,
             " experts unevenly: need a divisor of them");
  check_tensor_parallel(rules, job.model, l, facts);
  check_pipeline(rules, job, l);
  return rules.broken();
}

}  // namespace hadal
