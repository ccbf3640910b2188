// evaluate() of a model whose stages are on several ranks.
#pragma once
#include "hadal/train/evaluate.h"
#include "hadal/train/rank_layout.h"

namespace hadal {

// By all ranks of one pipeline together; the same numbers on each, bit for bit those of one process.
HeldOut evaluate(const RankLayout& ranks, const Transformer& model, const TrainBatch& rows,
                 std::span<const int64_t> token_bytes);

}  // namespace hadal
