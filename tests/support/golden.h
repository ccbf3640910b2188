// Where tests find reference data. The working directory of a test is the repository root.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/error.h"

namespace hadal {

// $HADAL_GOLDEN (if set), ../shared/golden, tests/golden: the first that holds `case_name/file` wins. Throws
// not_found, naming the places, if none does: a test without its data fails rather than passing unseen.
inline std::filesystem::path golden_file(std::string_view case_name, std::string_view file) {
  std::vector<std::filesystem::path> places;
  if (const char* folder = std::getenv("HADAL_GOLDEN"); folder && *folder) places.push_back(folder);
  places.push_back("../shared/golden");
  places.push_back("tests/golden");
  std::string tried;
  for (const auto& place : places) {
    const auto path = place / std::filesystem::path(case_name) / std::filesystem::path(file);
    if (std::filesystem::exists(path)) return path;
    tried += " " + path.string();
  }
  throw Error(ErrorCode::kNotFound, "[tests.golden] no golden data for " + std::string(case_name) +
                                        "; looked at" + tried +
                                        ". Set HADAL_GOLDEN to the folder that holds the cases.");
}

// The folder of one case ("v3-tiny"): the first place that has its expected.json.
inline std::filesystem::path golden_dir(std::string_view case_name) {
  return golden_file(case_name, "expected.json").parent_path();
}

// The published V3-family tokenizer.json, too big for the repository: beside the golden data, or as fetched
// by
// `./dev setup` into .deps/tokenizer. Throws not_found.
inline std::filesystem::path golden_tokenizer_file() {
  try {
    return golden_file("tokenizer", "tokenizer.json");
  } catch (const Error&) {
    const std::filesystem::path fetched = ".deps/tokenizer/tokenizer.json";
    if (std::filesystem::exists(fetched)) return fetched;
    throw Error(
        ErrorCode::kNotFound,
        "[tests.golden] tokenizer.json is neither in $HADAL_GOLDEN/tokenizer nor in .deps/tokenizer. Run "
        "./dev setup, which fetches it.");
  }
}

// Real text for tests that want it: $HADAL_DATA or ../shared/data; nothing if neither is there.
inline std::optional<std::filesystem::path> data_dir() {
  const char* folder = std::getenv("HADAL_DATA");
  const std::filesystem::path path = folder && *folder ? folder : "../shared/data";
  if (std::filesystem::is_directory(path)) return path;
  return std::nullopt;
}

}  // namespace hadal
