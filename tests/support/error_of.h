// What a call is refused with.
#pragma once
#include <concepts>
#include <exception>
#include <string>

namespace hadal {

// The text of what it throws, or "no error".
template <std::invocable Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace hadal
