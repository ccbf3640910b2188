#include "hadal/ops/norm_rows.h"

#include <algorithm>

#include "hadal/kernels/train.h"
#include "hadal/ops/data.h"
#include "hadal/ops/product.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {

NormedRows norm_rows(const Tensor& x, const Tensor& gain_D, double eps) {
  const int64_t D = x.size(-1), rows = x.numel() / D;
  HADAL_SHAPE(gain_D, D);
  const NormedRows out{empty(x.sizes()), empty({rows})};
  const TrainKernels& k = train_kernels();
  parallel_for(rows, grain(D), [&](int64_t begin, int64_t end) {
    k.rms_norm(floats(x) + begin * D, floats(gain_D), floats(out.y) + begin * D, floats(out.rstd) + begin,
               end - begin, D, static_cast<float>(eps));
  });
  return out;
}

// Blocks of rows, not threads, own the partial sums of dgain: the order of addition never depends on threads.
NormGradients norm_rows_backward(const Tensor& dy_in, const Tensor& x, const Tensor& gain_D,
                                 const Tensor& rstd, const Tensor& other) {
  const Tensor dy = dy_in.contiguous(), dx = empty(x.sizes());
  const int64_t D = x.size(-1), rows = x.numel() / D;
  HADAL_SHAPE(gain_D, D);
  constexpr int64_t kBlock = 128;
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  const Tensor partial = zeros({blocks, D});
  const TrainKernels& k = train_kernels();
  parallel_for(blocks, std::max<int64_t>(1, grain(D) / kBlock), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kBlock, n = std::min(kBlock, rows - first);
      k.rms_norm_backward(floats(dy) + first * D, floats(x) + first * D, floats(gain_D), floats(rstd) + first,
                          other.defined() ? floats(other) + first * D : nullptr, floats(dx) + first * D,
                          floats(partial) + b * D, n, D);
    }
  });
  return {dx, partial.sum(0)};
}

}  // namespace hadal
