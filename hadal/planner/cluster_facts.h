// What a plan assumes of a cluster: the data sheet, how much of it kernels reach, and prices. All stated,
// none fitted to a plan's outcome; sources: docs/planner.md. Torch-free.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// What a fact may be.
enum class FactRange {
  kPositive,
  kNotNegative,
  kAtLeastOne,
  kShare,
  kPart
};  // kShare: (0, 1], kPart: [0, 1]

struct ClusterFacts {
  double peak_fp8_tflops = 1979, peak_bf16_tflops = 989;  // dense
  double memory_gib = 80;
  double memory_gbps = 3350;  // GB/s
  int64_t gpus_per_node = 8;
  double intra_gbps = 160, inter_gbps = 50;  // GB/s a GPU, each way
  // Shares of the above that were measured, while 20 of 132 SMs were communicating.
  double gemm_fp8 = 0.43, gemm_bf16 = 0.55;
  double attention_forward = 0.56, attention_backward = 0.425;  // of peak_bf16
  double memory_share = 0.425;  // tensors between the matrix products, counted once read and once written
  double intra_share = 0.95, inter_share = 0.58;
  double exchange_ms = 1;        // of an all-to-all beside its bytes: counts, handshake
  double expert_imbalance = 1;   // the fullest rank's rows to the mean
  double reduction_exposed = 1;  // share of the gradients' and weights' exchange that nothing hides
  double reserve_gib = 4;        // driver, libraries, fragments
  double price = 2;              // dollars a GPU hour

  void fields(auto&& f) {
    using R = FactRange;
    f("peak_fp8_tflops", peak_fp8_tflops, R::kPositive, "dense FP8 TFLOP/s of a GPU");
    f("peak_bf16_tflops", peak_bf16_tflops, R::kPositive, "dense BF16 TFLOP/s of a GPU");
    f("memory_gib", memory_gib, R::kPositive, "memory of a GPU, GiB");
    f("memory_gbps", memory_gbps, R::kPositive, "memory bandwidth of a GPU, GB/s");
    f("gpus_per_node", gpus_per_node, R::kAtLeastOne, "GPUs joined by the fast links");
    f("intra_gbps", intra_gbps, R::kPositive, "a GPU's bandwidth inside a node, GB/s each way");
    f("inter_gbps", inter_gbps, R::kPositive, "a GPU's bandwidth between nodes, GB/s each way");
    f("gemm_fp8", gemm_fp8, R::kShare, "share of the FP8 peak that matrix products reach");
    f("gemm_bf16", gemm_bf16, R::kShare, "share of the BF16 peak that matrix products reach");
    f("attention_forward", attention_forward, R::kShare, "share of the BF16 peak that attention reaches");
    f("attention_backward", attention_backward, R::kShare, "the same of its backward pass");
    f("memory_share", memory_share, R::kShare, "share of the memory bandwidth that all other passes reach");
    f("intra_share", intra_share, R::kShare, "share of intra_gbps that is reached");
    f("inter_share", inter_share, R::kShare, "share of inter_gbps that is reached");
    f("exchange_ms", exchange_ms, R::kNotNegative, "of an all-to-all beside its bytes");
    f("expert_imbalance", expert_imbalance, R::kAtLeastOne,
      "rows of the fullest rank of an all-to-all to the mean");
    f("reduction_exposed", reduction_exposed, R::kPart,
      "share of data parallelism's exchange that nothing hides");
    f("reserve_gib", reserve_gib, R::kNotNegative, "memory for the driver, libraries and fragments, GiB");
    f("price", price, R::kNotNegative, "dollars a GPU hour");
  }
};

// "h800", "h100". Throws not_found with the list.
ClusterFacts cluster_facts(const std::string& hardware);
std::vector<std::string> hardware_names();
// Throws invalid_argument for a name or value that is none.
void set_fact(ClusterFacts& facts, std::string_view name, std::string_view value);

}  // namespace hadal
