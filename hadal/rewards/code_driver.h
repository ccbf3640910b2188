// What calls a function under test inside the box: reads the arguments on stdin, prints the result as JSON.
// It knows no expected value, so whatever the code under test does to it can only change what is printed.
#pragma once
#include <string>

namespace hadal {

// A translation unit with main(). Types: bool, char, integers, floating-point numbers, std::string,
// std::vector of these.
std::string cpp_driver(const std::string& signature, const std::string& function);

// A script; the code under test is /box/solution.py.
std::string python_driver(const std::string& function);

}  // namespace hadal
