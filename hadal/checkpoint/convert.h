// Parts of convert() that tests reach on their own.
#pragma once
#include "hadal/checkpoint.h"
#include "hadal/config/weight_specs.h"

namespace hadal {

// How a weight of this role, that is not in groups (group_format), is stored in a checkpoint of `dtype`. The
// balance bias stays F32. FP8: matrices are quantised, all else is BF16 (architecture spec, "Checkpoint
// format"). INT8, INT4: F32 stays, all else is BF16.
ElementType stored_type(WeightRole role, DType dtype, ElementType now);

}  // namespace hadal
