#include "hadal/kernels/isa.h"

#include <cstdlib>
#include <iterator>
#include <string>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr std::string_view kIsas[] = {"avx512bf16", "avx512vnni", "avx512", "avx2", "scalar"};

bool cpu_runs([[maybe_unused]] std::string_view isa) {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return false;
  if (isa == "avx2") return true;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return false;
  if (isa == "avx512") return true;
  if (!__builtin_cpu_supports("avx512vnni")) return false;
  return isa == "avx512vnni" || (isa == "avx512bf16" && __builtin_cpu_supports("avx512bf16"));
#else
  return false;
#endif
}

int best_rank() {
  for (int rank = 0;; ++rank)
    if (isa_runs(kIsas[rank])) return rank;
}

}  // namespace

int isa_rank(std::string_view isa) {
  for (int rank = 0; rank < static_cast<int>(std::size(kIsas)); ++rank)
    if (kIsas[rank] == isa) return rank;
  return -1;
}

bool isa_runs(std::string_view isa) {
  return isa == "scalar" || (isa_rank(isa) >= 0 && cpu_runs(isa));
}

int chosen_isa_rank() {
  const char* wanted = std::getenv("HADAL_ISA");
  if (!wanted || !*wanted) return best_rank();
  if (isa_runs(wanted)) return isa_rank(wanted);
  std::string known;
  for (const std::string_view isa : kIsas)
    if (isa_runs(isa)) known += (known.empty() ? "" : ", ") + std::string(isa);
  throw Error(ErrorCode::kUnsupported, cat("[kernels.choose] HADAL_ISA is \"", wanted,
                                           "\", this machine runs ", known, ". Choose one of them."));
}

}  // namespace hadal
