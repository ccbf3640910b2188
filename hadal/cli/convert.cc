#include <filesystem>
#include <map>

#include "hadal/base/text.h"
#include "hadal/checkpoint.h"
#include "hadal/cli/command_line.h"
#include "hadal/error.h"

namespace hadal {
namespace {

template <class Type>
Type chosen(const std::map<std::string, Type>& types, const std::string& dtype,
            const std::string& destination) {
  if (const auto it = types.find(dtype); it != types.end()) return it->second;
  std::string names;
  for (const auto& [name, type] : types) names += (names.empty() ? "" : ", ") + name;
  throw Error(ErrorCode::kInvalidArgument, cat("[cli.convert] --dtype is ", dtype, ", need one of ", names,
                                               " for ", destination, ". Choose one of them."));
}

bool is_gguf(const std::string& path) {
  return std::filesystem::path(path).extension() == ".gguf";
}

}  // namespace

int run_convert(const ConvertCommandOptions& options) {
  static const std::map<std::string, DType> kTypes = {{"f32", DType::kF32},   {"f16", DType::kF16},
                                                      {"bf16", DType::kBF16}, {"fp8", DType::kF8E4M3},
                                                      {"int8", DType::kInt8}, {"int4", DType::kInt4}};
  static const std::map<std::string, GgufDType> kGgufTypes = {
      {"f32", GgufDType::kF32}, {"bf16", GgufDType::kBF16}, {"q8_0", GgufDType::kQ8_0}};
  if (is_gguf(options.destination)) {
    write_gguf(options.source, options.destination, chosen(kGgufTypes, options.dtype, options.destination),
               options.convert.overwrite);
    return 0;
  }
  ConvertOptions convert_options = options.convert;
  convert_options.dtype = chosen(kTypes, options.dtype, options.destination);
  if (is_gguf(options.source)) {
    read_gguf(options.source, options.destination, convert_options);
  } else {
    convert(options.source, options.destination, convert_options);
  }
  return 0;
}

}  // namespace hadal
