#include "hadal/kernels/probe.h"

#include "hadal/kernels/isa.h"

namespace hadal {
namespace kernels {
#define HADAL_PROBES(isa)                         \
  namespace isa {                                 \
  double fma_rounds(int64_t rounds, float* sink); \
  float read_floats(const float* x, int64_t n);   \
  }
HADAL_PROBES(scalar)
#ifdef __x86_64__
HADAL_PROBES(avx2)
HADAL_PROBES(avx512)
#endif
#undef HADAL_PROBES
}  // namespace kernels

double fma_rounds(int64_t rounds, float* sink) {
#ifdef __x86_64__
  if (chosen_isa_rank() <= isa_rank("avx512")) return kernels::avx512::fma_rounds(rounds, sink);
  if (chosen_isa_rank() <= isa_rank("avx2")) return kernels::avx2::fma_rounds(rounds, sink);
#endif
  return kernels::scalar::fma_rounds(rounds, sink);
}

float read_floats(const float* x, int64_t n) {
#ifdef __x86_64__
  if (chosen_isa_rank() <= isa_rank("avx512")) return kernels::avx512::read_floats(x, n);
  if (chosen_isa_rank() <= isa_rank("avx2")) return kernels::avx2::read_floats(x, n);
#endif
  return kernels::scalar::read_floats(x, n);
}

}  // namespace hadal
