#include "hadal/data/token_windows.h"

#include <algorithm>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

Tensor windows_at(std::span<const int32_t> ids, const std::vector<int64_t>& starts, int64_t X) {
  Tensor out_BX = empty({static_cast<int64_t>(starts.size()), X}, at::kLong);
  int64_t* row = static_cast<int64_t*>(out_BX.data_ptr());
  for (const int64_t start : starts) row = std::copy_n(ids.begin() + start, X, row);
  return out_BX;
}

}  // namespace

TokenSplit split_tokens(std::span<const int32_t> ids, double held_out_share, int64_t X) {
  const auto n = static_cast<int64_t>(ids.size());
  const int64_t held_out = static_cast<int64_t>(static_cast<double>(n) * held_out_share);
  if (held_out < X || n - held_out < X) {
    throw Error(ErrorCode::kInvalidArgument,
                cat("[data.split] the text has ", n, " tokens, of which ", held_out,
                    " are held out: each part needs at least one window of ", X,
                    ". Give more text or a shorter --length."));
  }
  const auto cut = ids.begin() + (n - held_out);
  return {{ids.begin(), cut}, {cut, ids.end()}};
}

Tensor spread_windows(std::span<const int32_t> ids, int64_t most, int64_t X) {
  const auto n = static_cast<int64_t>(ids.size());
  const int64_t count = std::clamp<int64_t>(n / X, 1, most);
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < count; ++i) starts.push_back(count == 1 ? 0 : (n - X) * i / (count - 1));
  return windows_at(ids, starts, X);
}

}  // namespace hadal
