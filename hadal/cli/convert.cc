#include <map>

#include "hadal/checkpoint.h"
#include "hadal/cli/command_line.h"

namespace hadal {

int run_convert(const ConvertCommandOptions& options) {
  static const std::map<std::string, DType> kTypes = {{"f32", DType::kF32},   {"f16", DType::kF16},
                                                      {"bf16", DType::kBF16}, {"fp8", DType::kF8E4M3},
                                                      {"int8", DType::kInt8}, {"int4", DType::kInt4}};
  ConvertOptions convert_options = options.convert;
  convert_options.dtype = kTypes.at(options.dtype);
  convert(options.source, options.destination, convert_options);
  return 0;
}

}  // namespace hadal
