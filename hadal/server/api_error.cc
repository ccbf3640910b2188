#include "hadal/server/api_error.h"

#include <nlohmann/json.hpp>

#include "hadal/base/json.h"

namespace hadal {

const char* error_type(int status) {
  if (status == 401 || status == 403) return "authentication_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

std::string error_json(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  return dump_json(Json{{"error",
                         {{"message", error.what()},
                          {"type", error_type(error.status)},
                          {"param", or_null(error.param)},
                          {"code", or_null(error.code)}}}});
}

}  // namespace hadal
