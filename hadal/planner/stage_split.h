// Layers shared out to the stages of a pipeline so that none is slow (training spec 10.7). Torch-free.
#pragma once
#include <vector>

#include "hadal/config/stage.h"

namespace hadal {

// Floating-point operations of one token in a sequence of `length` through a stage, forward, a multiply-add
// counting two: what its matrices and attention multiply; the head once more for each MTP module.
double stage_flops(const ModelConfig& config, const Stage& stage, int64_t length);

// The split whose slowest stage is fastest; among those the most even one. A stage may be without layers.
std::vector<Stage> balanced_stages(const ModelConfig& config, int64_t stages, int64_t length);

}  // namespace hadal
