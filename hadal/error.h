// Errors of the outside world: files, configuration, requests, peers. PUBLIC.
#pragma once
#include <stdexcept>
#include <string>

namespace hadal {

enum class ErrorCode {
  kInvalidArgument,  // the caller's value is out of range or contradictory
  kInvalidConfig,    // a configuration file or its fields are wrong
  kNotFound,         // no such file, tensor, model
  kCorrupt,          // a file breaks its own format
  kUnsupported,      // valid, but hadal cannot do it
  kExhausted,        // memory, disk, budget
  kUnavailable,      // permission, peer gone, timeout
  kInternal,         // a bug in hadal
};

// what() reads "[module.op] what is wrong: got X, need Y. What to do."
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// Stable lower-case name, e.g. "invalid_config".
const char* name(ErrorCode code);

// Exit code of a command-line program: 3 for a bad file (corrupt, invalid_config), 1 otherwise.
int exit_code(ErrorCode code);

}  // namespace hadal
