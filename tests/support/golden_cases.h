// Golden cases found by looking at the folders, and their numbers without LibTorch.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/checkpoint/numbers.h"
#include "hadal/checkpoint/safetensors.h"
#include "tests/support/golden.h"

namespace hadal {

struct Tolerance {
  double atol = 0, rtol = 0;
};

// expected.safetensors and expected.json of one folder as plain arrays.
class GoldenArrays {
 public:
  explicit GoldenArrays(const std::filesystem::path& folder)
      : file_(folder / "expected.safetensors"),
        json_(parse_json(read_file(folder / "expected.json"), (folder / "expected.json").string())) {}

  bool has(const std::string& name) const { return file_.find(name) != nullptr; }
  std::vector<int64_t> shape(const std::string& name) const { return file_.at(name).shape; }
  std::vector<float> floats(const std::string& name) const {
    const StoredTensor& stored = file_.at(name);
    std::vector<float> out(static_cast<size_t>(stored.num_values()));
    to_f32(stored.type, stored.bytes.data(), out.data(), stored.num_values());
    return out;
  }
  std::vector<int32_t> ints(const std::string& name) const {
    const StoredTensor& stored = file_.at(name);
    EXPECT_EQ(stored.type, ElementType::kI64) << name;
    std::vector<int32_t> out;
    for (int64_t i = 0; i < stored.num_values(); ++i) {
      int64_t value;
      std::memcpy(&value, stored.bytes.data() + i * 8, 8);
      out.push_back(static_cast<int32_t>(value));
    }
    return out;
  }
  Tolerance tolerance(const std::string& kind) const {
    const Json& t = json_.at("tolerance").at(kind);
    return {t.value("atol", 0.0), t.value("rtol", 0.0)};
  }
  const Json& json() const { return json_; }

 private:
  SafetensorsFile file_;
  Json json_;
};

// Golden README: max |got - want| <= atol + rtol * max |want|, maxima over the tensor.
inline void expect_close(std::span<const float> got, std::span<const float> want, Tolerance tolerance,
                         const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double worst = 0, most = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double off = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    worst = off > worst || std::isnan(off) ? off : worst;
    most = std::max(most, std::abs(static_cast<double>(want[i])));
  }
  EXPECT_TRUE(worst <= tolerance.atol + tolerance.rtol * most)
      << what << ": off by " << worst << ", limit " << tolerance.atol + tolerance.rtol * most;
}

// The folders of all cases whose expected.safetensors has the named tensor (and a model, or none), found by
// looking: another set of cases in the same format runs unchanged. Only the first place that exists is looked
// at (see golden.h).
inline std::vector<std::filesystem::path> golden_cases(const std::string& tensor_name, bool with_model) {
  std::vector<std::filesystem::path> cases;
  const char* chosen = std::getenv("HADAL_GOLDEN");
  std::vector<std::filesystem::path> places{"../shared/golden", "tests/golden"};
  if (chosen && *chosen) places = {chosen};
  for (const auto& place : places) {
    if (!std::filesystem::is_directory(place)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(place)) {
      const auto file = entry.path() / "expected.safetensors";
      if (with_model != std::filesystem::exists(entry.path() / "model.safetensors")) continue;
      if (std::filesystem::exists(file) && SafetensorsFile(file).find(tensor_name))
        cases.push_back(entry.path());
    }
    break;
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

// For INSTANTIATE_TEST_SUITE_P: the folder's name as an identifier.
inline std::string case_name(const testing::TestParamInfo<std::filesystem::path>& info) {
  std::string name = info.param.filename().string();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

}  // namespace hadal
