// A training step of a model on a cluster, on paper: memory a rank by part, traffic, bubble, speed, cost; and
// the layouts that suit best. What is assumed: cluster_facts.h and docs/planner.md. Torch-free.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "hadal/planner/cluster_layout.h"
#include "hadal/planner/pipeline_run.h"

namespace hadal {

// Bytes of one GPU.
struct ClusterMemory {
  double weights = 0;    // as the products read them
  double gradients = 0;  // fp32
  double master = 0, moments = 0;
  double activations = 0;  // of all micro-batches in flight
  double logits = 0;
  double buffers = 0;  // rows sent and received by the all-to-all
  double reserve = 0;
  double total() const {
    return weights + gradients + master + moments + activations + logits + buffers + reserve;
  }
  void fields(auto&& f) const {
    f("weights", weights);
    f("gradients", gradients);
    f("master", master);
    f("moments", moments);
    f("activations", activations);
    f("logits", logits);
    f("buffers", buffers);
    f("reserve", reserve);
  }
};

// Bytes that a GPU sends in a step: of the rank of the pipeline that sends most, part by part.
struct ClusterTraffic {
  double pipeline = 0;
  double dispatch_inter = 0, dispatch_intra = 0;  // forward rows and backward gradients, to the experts
  double combine_inter = 0, combine_intra = 0;    // and back
  double tensor = 0;
  double reduce_scatter = 0, all_gather = 0;  // gradients; weights
  void fields(auto&& f) const {
    f("pipeline", pipeline);
    f("dispatch_inter", dispatch_inter);
    f("dispatch_intra", dispatch_intra);
    f("combine_inter", combine_inter);
    f("combine_intra", combine_intra);
    f("tensor", tensor);
    f("reduce_scatter", reduce_scatter);
    f("all_gather", all_gather);
  }
};

struct ClusterPlan {
  ClusterLayout layout;
  int64_t microbatches = 0;
  std::vector<int64_t> first_units;  // of the stages, and the end; unit num_layers is the end of the model
  std::vector<StageTimes> stages;
  PipelineRun pipeline;
  std::vector<ClusterMemory> memory;  // of the pipeline's ranks
  ClusterTraffic traffic;
  double reduction_seconds = 0, optimizer_seconds = 0, step_seconds = 0;
  double bubble = 0;  // mean idle share of the pipeline
  double tokens_per_second = 0;
  double flops_per_token =
      0;  // 3 x the main model's forward pass, causal attention, without MTP and recomputing
  double mfu_bf16 = 0, mfu_fp8 = 0;
  double hours_per_trillion = 0, cost_per_trillion = 0;

  const ClusterMemory& fullest() const;
  bool fits(const ClusterFacts& facts) const;
};

// Throws invalid_argument if the layout breaks a rule. One that does not fit in memory is planned all the
// same.
ClusterPlan plan_cluster(const ClusterJob& job, const ClusterLayout& layout, const ClusterFacts& facts);

// The layouts of a job. Tried: every pp, tp and dp that make the GPUs, every ep, all schedules, micro-batches
// of 1, 2, 4 and 8, each kind of recomputing.
struct ClusterProposal {
  std::vector<ClusterPlan> best;  // fastest first
  int64_t tried = 0, fitting = 0;
  std::map<std::string, int64_t> refused;  // by the rule they break, or "memory of a GPU"
};
ClusterProposal propose_layouts(const ClusterJob& job, const ClusterFacts& facts, size_t most);

}  // namespace hadal
