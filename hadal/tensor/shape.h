// HADAL_SHAPE(x_TD, T, D): the suffix is compared with the letters at compile time, the sizes at run time.
// The legend of letters is docs/shapes.md; a lower-case letter is this rank's share of the capital's size.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <source_location>
#include <string_view>

#include "hadal/tensor/fwd.h"

namespace hadal::detail {

consteval bool suffix_matches(std::string_view name, std::string_view dims) {
  while (!name.empty() && name.back() == '_') name.remove_suffix(1);  // private members
  const std::string_view suffix = name.substr(name.rfind('_') + 1);
  size_t i = 0;
  for (const char c : dims) {
    if (c == ' ' || c == ',') continue;
    if (i == suffix.size() || suffix[i++] != c) return false;
  }
  return i == suffix.size();
}

// Throws Error{internal}: "mla.cc:42: [shape] q_rope_BHR is [3, 4, 4], wants [3, 4, 8]".
void check_shape(const Tensor& x, const char* name, std::initializer_list<int64_t> wanted,
                 std::source_location where = std::source_location::current());

}  // namespace hadal::detail

#define HADAL_SHAPE(x, ...)                                              \
  do {                                                                   \
    static_assert(::hadal::detail::suffix_matches(#x, #__VA_ARGS__),     \
                  "the suffix of " #x " is not the dims " #__VA_ARGS__); \
    ::hadal::detail::check_shape(x, #x, {__VA_ARGS__});                  \
  } while (0)
