// JSON of requests, whose numbers have no bound by JSON's own rules.
#pragma once
#include "hadal/base/json.h"

namespace hadal {

// As parse_json, but an integer beyond int64 is the nearest double.
Json parse_wide_json(std::string_view text, std::string_view source);

}  // namespace hadal
