// Countdown: reach a number with given numbers, each used once, by + - * / and brackets.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace hadal {

// Of an expression: "right", "wrong" (another value), "wrong_numbers" (not each given one once),
// "unreadable". Exact fractions; no power, no other function; a sign only as subtraction. Bounded: an
// expression has at most 256 bytes and 16 brackets in one another.
const char* judge_countdown(std::string_view expression, const std::vector<int64_t>& numbers, int64_t target);

}  // namespace hadal
