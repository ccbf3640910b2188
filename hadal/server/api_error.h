// What a client did wrong, in the form the OpenAI API reports it.
#pragma once
#include <stdexcept>
#include <string>

namespace hadal {

// Becomes {"error": {"message", "type", "param", "code"}} with the HTTP status.
struct ApiError : std::runtime_error {
  ApiError(int http_status, const std::string& message, std::string parameter = "",
           std::string error_code = "")
      : std::runtime_error(message),
        status(http_status),
        param(std::move(parameter)),
        code(std::move(error_code)) {}

  int status;                 // 400, 401, 404, 413, 429, 503 ...
  std::string param;          // the field of the request ("messages[2].role"); "": null
  std::string code;           // "model_not_found"; "": null
  int64_t retry_seconds = 1;  // of 429 and 503: when to try again
};

// "invalid_request_error", "authentication_error", "rate_limit_error" or "server_error".
const char* error_type(int status);

// The body of the response, one line.
std::string error_json(const ApiError& error);

}  // namespace hadal
