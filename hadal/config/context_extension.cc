#include "hadal/config/context_extension.h"

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {

ModelConfig extended(const ModelConfig& config, int64_t positions, double factor) {
  const int64_t original = config.mla.yarn ? config.mla.yarn->original_positions : config.max_positions;
  const double least = static_cast<double>(positions) / static_cast<double>(original);
  if (positions <= original || (factor != 0 && !(factor >= least)))
    throw Error(ErrorCode::kInvalidConfig,
                cat("[config.extend] context ", positions, ", factor ", factor, ": the model was trained on ",
                    original, " positions, need a longer context and a factor of at least ", least,
                    ". Set model.context and model.yarn_factor."));
  ModelConfig out = config;
  out.max_positions = positions;
  YarnConfig yarn = config.mla.yarn.value_or(YarnConfig{});
  yarn.factor = factor != 0 ? factor : least, yarn.original_positions = original;
  out.mla.yarn = yarn;
  return out;
}

}  // namespace hadal
