// Compares what a program wrote with what was expected, outside of the box.
#pragma once
#include <string>
#include <string_view>

namespace hadal {

// Throws invalid_argument, beginning with `where`, for a checker that is none of tokens, exact, float:<eps>,
// cpp:<program>, python:<program>.
void require_checker(std::string_view checker, const std::string& where);

bool is_program_checker(std::string_view checker);

// tokens: the same words, as many. exact: the same bytes but for line breaks at the end. float:<eps>: tokens,
// of which numbers may differ by eps, absolutely or relatively. A program's checker is not for here.
bool output_matches(std::string_view checker, std::string_view output, std::string_view expected);

// Two JSON texts: the same value; numbers of which one is no integer may differ by 1e-9, absolutely or
// relatively. Text that is no JSON matches nothing.
bool result_matches(std::string_view output, std::string_view expected);

}  // namespace hadal
