// A golden case as tensors: expected.safetensors and expected.json of one folder, with its tolerances.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/tensor/make.h"
#include "tests/support/golden_cases.h"

namespace hadal {

class GoldenCase {
 public:
  explicit GoldenCase(const std::filesystem::path& folder)
      : folder_(folder),
        file_(folder / "expected.safetensors"),
        json_(parse_json(read_file(folder / "expected.json"), (folder / "expected.json").string())) {}

  bool has(const std::string& name) const { return file_.find(name) != nullptr; }
  Tensor tensor(const std::string& name) const {
    const StoredTensor& stored = file_.at(name);
    const auto type = stored.type == ElementType::kI64    ? at::kLong
                      : stored.type == ElementType::kF64  ? at::kDouble
                      : stored.type == ElementType::kBF16 ? at::kBFloat16
                                                          : at::kFloat;
    Tensor out = empty(stored.shape, type);
    EXPECT_EQ(out.nbytes(), stored.bytes.size()) << name;
    if (!stored.bytes.empty()) std::memcpy(out.data_ptr(), stored.bytes.data(), stored.bytes.size());
    return out;
  }
  std::vector<std::string> names(const std::string& prefix) const {
    std::vector<std::string> found;
    for (const StoredTensor& t : file_.tensors())
      if (t.name.starts_with(prefix)) found.push_back(t.name);
    return found;
  }
  const Json& json() const { return json_; }
  Tolerance tolerance(const std::string& kind) const {
    const Json& t = json_.at("tolerance").at(kind);
    return {t.value("atol", 0.0), t.value("rtol", 0.0)};
  }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
  SafetensorsFile file_;
  Json json_;
};

// Golden README: max |got - want| <= atol + rtol * max |want|, maxima over the tensor.
inline void expect_close(const Tensor& got, const Tensor& want, Tolerance tolerance,
                         const std::string& what) {
  ASSERT_TRUE(got.sizes().equals(want.sizes()))
      << what << ": got " << shape_text(got.sizes().vec()) << ", want " << shape_text(want.sizes().vec());
  if (want.numel() == 0) return;
  const Tensor g = got.detach().to(at::kDouble), w = want.to(at::kDouble);
  const double worst = (g - w).abs().max().item<double>();
  const double limit = tolerance.atol + tolerance.rtol * w.abs().max().item<double>();
  EXPECT_TRUE(worst <= limit) << what << ": off by " << worst << ", limit " << limit;  // NaN fails too
}

inline void expect_near(double got, double want, Tolerance tolerance, const std::string& what) {
  EXPECT_LE(std::abs(got - want), tolerance.atol + tolerance.rtol * std::abs(want))
      << what << ": " << got << " for " << want;
}

inline void expect_equal(const Tensor& got, const Tensor& want, const std::string& what) {
  ASSERT_TRUE(got.sizes().equals(want.sizes())) << what;
  EXPECT_TRUE(got.equal(want)) << what << " differs in " << got.ne(want).sum().item<int64_t>() << " of "
                               << want.numel();
}

}  // namespace hadal
