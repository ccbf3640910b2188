// Parts of convert() that tests reach on their own.
#pragma once
#include <filesystem>

#include "hadal/checkpoint.h"
#include "hadal/config/weight_specs.h"

namespace hadal {

// How a weight of this role, that is not in groups (group_format), is stored in a checkpoint of `dtype`. The
// balance bias stays F32. FP8: matrices are quantised, all else is BF16 (architecture spec, "Checkpoint
// format"). INT8, INT4: F32 stays, all else is BF16.
ElementType stored_type(WeightRole role, DType dtype, ElementType now);

// Throws exhausted, with both numbers, if the file system of `folder` has less than `bytes` free.
void require_space(const std::filesystem::path& folder, int64_t bytes);

}  // namespace hadal
