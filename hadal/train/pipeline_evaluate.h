// evaluate() of a model that several ranks share out.
#pragma once
#include "hadal/train/evaluate.h"
#include "hadal/train/rank_layout.h"

namespace hadal {

// By all ranks that measure together (RankLayout); on those of data rank 0 the numbers, bit for bit those of
// one process.
HeldOut evaluate(const RankLayout& ranks, const Transformer& model, const TrainBatch& rows,
                 std::span<const int64_t> token_bytes);

}  // namespace hadal
