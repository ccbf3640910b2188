// JSON of the outside world, strictly: duplicate keys, non-finite numbers, integers beyond int64, depth
// above 64, bad UTF-8 and trailing bytes are errors that name the place. Key order is kept. The value type
// is nlohmann's; a .cc file that looks inside includes <nlohmann/json.hpp> itself.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace hadal {

using Json = nlohmann::ordered_json;

// `source` names the text in errors ("model/config.json"); `offset` is added to the byte positions reported.
// Throws Error{corrupt} with "[json] <source>: byte N: ...".
Json parse_json(std::string_view text, std::string_view source, size_t offset = 0);

// Serialises; invalid UTF-8 becomes U+FFFD, never throws. indent < 0: one line.
std::string dump_json(const Json& value, int indent = -1);

}  // namespace hadal
