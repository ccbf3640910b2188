#include "hadal/ops/expert_order.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "hadal/ops/data.h"
#include "hadal/ops/product.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {

ExpertOrder sort_by_expert(const Tensor& expert_TA, int64_t E) {
  const int64_t T = expert_TA.size(0), A = expert_TA.size(1), U = T * A;
  HADAL_SHAPE(expert_TA, T, A);
  const Tensor flat = expert_TA.contiguous();
  ExpertOrder order{empty({U}, at::kLong), empty({U}, at::kLong),
                    std::vector<int64_t>(static_cast<size_t>(E + 1), 0)};
  const int64_t* expert = static_cast<const int64_t*>(flat.data_ptr());
  for (int64_t u = 0; u < U; ++u) ++order.begin_E[static_cast<size_t>(expert[u] + 1)];
  for (size_t e = 1; e < order.begin_E.size(); ++e) order.begin_E[e] += order.begin_E[e - 1];
  std::vector<int64_t> next(order.begin_E.begin(), order.begin_E.end() - 1);
  auto* token = static_cast<int64_t*>(order.token_U.data_ptr());
  auto* place = static_cast<int64_t*>(order.place_U.data_ptr());
  for (int64_t u = 0; u < U; ++u) {
    const int64_t row = next[static_cast<size_t>(expert[u])]++;
    place[u] = row;
    token[row] = u / A;
  }
  return order;
}

void for_each_expert(const std::vector<int64_t>& begin_E,
                     const std::function<void(int64_t, int64_t, int64_t)>& body) {
  std::vector<int64_t> order;
  const auto rows = [&](int64_t e) {
    return begin_E[static_cast<size_t>(e + 1)] - begin_E[static_cast<size_t>(e)];
  };
  for (int64_t e = 0; e + 1 < static_cast<int64_t>(begin_E.size()); ++e)
    if (rows(e) > 0) order.push_back(e);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return rows(a) > rows(b); });
  std::atomic<size_t> next{0};
  parallel_for(num_threads(), 1, [&](int64_t first, int64_t last) {
    NoGrad no_grad;  // a mode of the thread
    for (int64_t worker = first; worker < last; ++worker)
      for (size_t i; (i = next++) < order.size();)
        body(order[i], begin_E[static_cast<size_t>(order[i])], rows(order[i]));
  });
}

Tensor expert_counts(const Tensor& expert_TA, int64_t E) {
  const Tensor flat_U = expert_TA.flatten();
  return flat_U.new_zeros({E}).scatter_add_(0, flat_U, flat_U.new_ones(flat_U.sizes()));
}

std::vector<int64_t> copy_of_row(const Tensor& place_U) {
  const int64_t U = place_U.numel();
  HADAL_SHAPE(place_U, U);
  std::vector<int64_t> copy(static_cast<size_t>(U));
  const auto* place = static_cast<const int64_t*>(place_U.data_ptr());
  for (size_t c = 0; c < copy.size(); ++c) copy[static_cast<size_t>(place[c])] = static_cast<int64_t>(c);
  return copy;
}

Tensor rows_at(const Tensor& x_XY, const Tensor& row_U) {
  const int64_t U = row_U.numel(), Y = x_XY.size(1);
  HADAL_SHAPE(row_U, U);
  const Tensor out_UY = empty({U, Y}, x_XY.scalar_type());
  const auto bytes = static_cast<size_t>(Y * x_XY.element_size());
  const int64_t* row = longs(row_U);
  const auto* from = static_cast<const char*>(x_XY.data_ptr());
  auto* to = static_cast<char*>(out_UY.data_ptr());
  parallel_for(U, grain(Y), [&](int64_t begin, int64_t end) {
    for (auto u = static_cast<size_t>(begin); u < static_cast<size_t>(end); ++u)
      std::memcpy(to + u * bytes, from + static_cast<size_t>(row[u]) * bytes, bytes);
  });
  return out_UY;
}

Tensor weight_by_row(const ExpertOrder& order, const Tensor& weight_TA) {
  const int64_t T = weight_TA.size(0), A = weight_TA.size(1);
  HADAL_SHAPE(weight_TA, T, A);
  const Tensor from = weight_TA.contiguous(), weight_U = empty(order.place_U.sizes());
  const auto* place = static_cast<const int64_t*>(order.place_U.data_ptr());
  const auto* weight = static_cast<const float*>(from.data_ptr());
  for (int64_t u = 0; u < from.numel(); ++u) static_cast<float*>(weight_U.data_ptr())[place[u]] = weight[u];
  return weight_U;
}

}  // namespace hadal
