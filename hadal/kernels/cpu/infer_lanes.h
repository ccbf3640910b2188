// Vectors of kLanes floats or 32-bit integers: the vocabulary in which the inference kernels are written
// once.
// *_first(.., n): the first n lanes only, the others 0 or untouched; memory beyond is not read or written.
#pragma once
#ifdef __AVX512F__
#include "hadal/kernels/cpu/infer_avx512.h"
#else
#include "hadal/kernels/cpu/infer_avx2.h"
#endif
