// config.json of Hugging Face checkpoints as a JSON value: read, write, and edit in place.
#pragma once
#include <string>

#include "hadal/base/json.h"
#include "hadal/config.h"

namespace hadal {

// Either dialect. `source` names the text in errors. The result has passed check().
ModelConfig parse_config(const Json& root, const std::string& source);

// The same config.json for weights stored as `stored` says (stored_dtype and the fields below it):
// torch_dtype (or dtype) and quantization_config change, all else stays, fields unknown to hadal too.
Json with_storage(Json root, const ModelConfig& stored);

}  // namespace hadal
