// The one header through which hadal sees LibTorch's tensor: its methods, no free functions (see make.h).
#pragma once
#include <ATen/core/Tensor.h>

#include "hadal/tensor/fwd.h"
