// What a piece of the model costs the rank that holds it, per token: operations, bytes, parameters. The units
// are what a pipeline can cut between: each layer (the first with the embedding), and the end (final norm,
// head, MTP). Torch-free.
#pragma once
#include <vector>

#include "hadal/planner/cluster_layout.h"

namespace hadal {

// Of one token's way through a unit on one rank. FLOPs and bytes as double: sums pass 2^63.
struct UnitCost {
  double gemm = 0;        // FLOPs of products in the job's precision, forward; each gradient costs the same
  double gemm_bf16 = 0;   // of those that stay in BF16: router, head, MTP's projection
  double gemm_again = 0;  // recomputed in the backward pass
  double attention = 0;   // forward, causal, scores and sum
  double attention_backward = 0;
  double passes = 0;  // bytes moved between the products, forward
  double passes_again = 0;
  double exchanges = 0;  // all-to-all there and back: one per MoE layer
  double exchanges_again = 0;
  double tensor_sums = 0;                     // all-reduces over tp, of a token's width
  double kept = 0;                            // bytes held from the forward to the backward pass
  double logits = 0;                          // bytes of a token's logits, one head at a time
  double dense = 0, tables = 0, experts = 0;  // parameters of the rank; tables: embedding and head
  UnitCost& operator+=(const UnitCost& other);
};

// Expected copies of a token that an all-to-all sends: K experts drawn evenly from the groups it may use.
struct ExchangeSpread {
  double nodes = 1;  // that it reaches, its own included
  double ranks = 1;  // that it reaches; a rank gets it once, however many of its experts want it
  double inter = 0;  // copies that cross between nodes
  double intra = 0;  // copies that a node hands on
};
ExchangeSpread exchange_spread(const ClusterJob& job, const ClusterLayout& layout, const ClusterFacts& facts);

// num_layers + 1 units.
std::vector<UnitCost> unit_costs(const ClusterJob& job, const ClusterLayout& layout,
                                 const ClusterFacts& facts);

// First unit of each stage, and the end: `stages` contiguous parts, none empty, the largest sum as small as
// can be, then the sum of their squares. REQUIRES: 1 <= stages <= costs.size().
std::vector<int64_t> balanced_split(const std::vector<double>& costs, int64_t stages);

}  // namespace hadal
