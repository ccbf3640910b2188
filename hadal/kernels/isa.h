// Which instruction sets run here, and which one the kernels use: a fixed function of CPUID and HADAL_ISA.
#pragma once
#include <string_view>

namespace hadal {

// Ranks, best first: "avx512bf16", "avx512vnni", "avx512", "avx2", "scalar". Each contains those after it.
// -1: no such name.
int isa_rank(std::string_view isa);
bool isa_runs(std::string_view isa);

// Rank of the instruction set in use. A family of kernels takes its first table of this rank or a later one.
// Without HADAL_ISA the best that runs. Throws unsupported for a HADAL_ISA that does not run here.
int chosen_isa_rank();

}  // namespace hadal
