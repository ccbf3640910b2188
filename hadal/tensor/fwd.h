// Enough of LibTorch to declare functions that take and return tensors.
#pragma once

namespace at {
class Tensor;
}

namespace hadal {
using at::Tensor;
}
