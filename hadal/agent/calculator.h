// Exact arithmetic for models that cannot multiply.
#pragma once
#include <string>
#include <string_view>

namespace hadal {

// The value of an expression of numbers (decimals too), + - * / % ^ and brackets, exactly: "355/113",
// "0.1+0.2" is "3/10 = 0.3". ^ binds most and takes an integer exponent; % is the remainder of integers.
// Bounded: throws Error{invalid_argument} for what it cannot read, a division by zero, or numbers beyond 120
// bits.
std::string calculate(std::string_view expression);

}  // namespace hadal
