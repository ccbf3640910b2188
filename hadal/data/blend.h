// Which source the next row comes from. Torch-free.
#pragma once
#include <cstdint>
#include <vector>

namespace hadal {

// Error diffusion: always the source whose share of the rows so far lags most behind its weight (the first of
// equals). Weights are rounded to 1/65536 of their sum, so that the choice repeats and row j needs no
// history.
class Blend {
 public:
  Blend() = default;
  // weights >= 0, their sum > 0; at most 65536. A positive weight gets one row in 65536 at least.
  explicit Blend(const std::vector<double>& weights);

  struct Choice {
    int64_t source, row;  // row: of the source's own, counted from 0
  };
  Choice operator()(int64_t row) const;  // O(1)

  int64_t rows_before(int64_t source, int64_t row) const;  // of the source among rows [0, row)
  double share(int64_t source) const;

 private:
  std::vector<int64_t> counts_;   // of each source in a period
  std::vector<uint16_t> source_;  // [period]
  std::vector<int32_t> nth_;      // [period] rows of that source before, in the period
};

}  // namespace hadal
