// Where tests find reference data. The working directory of a test is the repository root.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/error.h"

namespace hadal {

// $HADAL_GOLDEN (if set), ../shared/golden, tests/golden.
inline std::vector<std::filesystem::path> golden_places() {
  std::vector<std::filesystem::path> places = {"../shared/golden", "tests/golden"};
  if (const char* folder = std::getenv("HADAL_GOLDEN"); folder && *folder)
    places.insert(places.begin(), folder);
  return places;
}

// The first of the places that holds `case_name/file`. Throws not_found, naming the places, if none does: a
// test without its data fails rather than passing unseen.
inline std::filesystem::path golden_file(std::string_view case_name, std::string_view file) {
  std::string tried;
  for (const auto& place : golden_places()) {
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

// What `./dev setup` fetches: the published R1-0528 files of the V3 family, too big for the repository.
inline constexpr const char* kPublishedTokenizer = ".deps/tokenizer/tokenizer.json";
inline constexpr const char* kPublishedTokenizerSha256 =
    "ecb6f9fc369894346f0511f4074ca75cee5cd5f3b06d02f1ba35fcd39f8e121d";

// The tokenizer.json that the golden texts were made with: beside them, or else the published one. Throws
// not_found.
inline std::filesystem::path golden_tokenizer_file() {
  try {
    return golden_file("tokenizer", "tokenizer.json");
  } catch (const Error&) {
    if (std::filesystem::exists(kPublishedTokenizer)) return kPublishedTokenizer;
    throw Error(ErrorCode::kNotFound,
                "[tests.golden] tokenizer.json is neither in $HADAL_GOLDEN/tokenizer nor in .deps/tokenizer. "
                "Run ./dev setup, which fetches it.");
  }
}

// The published tokenizer.json itself, for vectors that hold for it alone, even if HADAL_GOLDEN has another:
// a place counts whose expected.json states its hash. Throws not_found.
inline std::filesystem::path published_tokenizer_file() {
  for (const std::filesystem::path& place : golden_places()) {
    const auto folder = place / "tokenizer";
    std::ifstream expected(folder / "expected.json");
    const std::string text{std::istreambuf_iterator<char>(expected), std::istreambuf_iterator<char>()};
    if (text.find(kPublishedTokenizerSha256) != std::string::npos &&
        std::filesystem::exists(folder / "tokenizer.json"))
      return folder / "tokenizer.json";
  }
  if (std::filesystem::exists(kPublishedTokenizer)) return kPublishedTokenizer;
  throw Error(ErrorCode::kNotFound,
              "[tests.golden] the published tokenizer.json is not in .deps/tokenizer. Run ./dev setup, which "
              "fetches it.");
}

// Real text for tests that want it: $HADAL_DATA or ../shared/data; nothing if neither is there.
inline std::optional<std::filesystem::path> data_dir() {
  const char* folder = std::getenv("HADAL_DATA");
  const std::filesystem::path path = folder && *folder ? folder : "../shared/data";
  if (std::filesystem::is_directory(path)) return path;
  return std::nullopt;
}

}  // namespace hadal
