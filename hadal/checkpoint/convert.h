// Parts of convert() that tests reach on their own.
#pragma once
#include <filesystem>

#include "hadal/checkpoint.h"
#include "hadal/config/weight_specs.h"

namespace hadal {

// How a weight of this role is stored in a checkpoint of `dtype`: the balance bias stays F32; in FP8 only
// matrices are quantised and all else is BF16 (architecture spec, "Checkpoint format").
ElementType stored_type(WeightRole role, DType dtype);

// Throws exhausted, with both numbers, if the file system of `folder` has less than `bytes` free.
void require_space(const std::filesystem::path& folder, int64_t bytes);

}  // namespace hadal
