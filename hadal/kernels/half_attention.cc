#include "hadal/kernels/half_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "hadal/kernels/half.h"
#include "hadal/kernels/query_block.h"
#include "hadal/kernels/train.h"

namespace hadal {
namespace {

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <typename T>
using Scratch = std::unique_ptr<T[], Free>;

// Not initialised, at a cache line: a load that crosses lines takes two turns.
template <typename T>
Scratch<T> scratch(int64_t n) {
  constexpr size_t kLine = 64;
  const size_t bytes = (static_cast<size_t>(n) * sizeof(T) + kLine) / kLine * kLine;
  return Scratch<T>(static_cast<T*>(std::aligned_alloc(kLine, bytes)));
}

int64_t padded(int64_t S) {
  return (S + kHalfUnit - 1) / kHalfUnit * kHalfUnit;
}

// The parts of a packed block. *_t are packed transposed, as right factors of products with x^T.
template <typename T>
struct Parts {
  T *key_t, *value_t, *query, *key, *value;
  Parts(const HalfHeadSizes& s, T* packed)
      : key_t(packed),
        value_t(key_t + padded(s.S) * s.K()),
        query(value_t + padded(s.S) * s.V),
        key(query + s.S * s.K()),
        value(key + s.S * s.K()) {}
};

float longest_row(const float* x, int64_t stride, int64_t rows, int64_t n, float* squares) {
  train_kernels().row_dot(x, stride, x, stride, squares, rows, n);
  return std::sqrt(*std::max_element(squares, squares + rows));
}

HalfKernels::Attention seen(const HalfHeadSizes& s, const QueryBlock& block, const float* score) {
  return {score, block.keys(), block.starts(), block.visible(), s.scale};
}

// out [rows, keys] = alpha a b^T: the block's rows of a [S, X], its keys of b, packed transposed.
void by_keys(const HalfHeadSizes& s, const QueryBlock& block, int64_t X, const uint16_t* a, int64_t a_row,
             const uint16_t* b_t, float alpha, float* out) {
  half_kernels(s.format).multiply({.M = block.rows(),
                                   .N = block.keys(),
                                   .K = X,
                                   .a = a + block.first() * a_row,
                                   .a_row = a_row,
                                   .a_k = 1,
                                   .b = b_t + block.begin() * X,
                                   .b_unit = kHalfUnit * X,
                                   .b_k = kHalfUnit,
                                   .c = out,
                                   .c_row = block.keys(),
                                   .alpha = alpha,
                                   .add = false});
}

void scores(const HalfHeadSizes& s, const Parts<const uint16_t>& p, const HalfHeadScales& scales,
            const QueryBlock& block, float* score) {
  by_keys(s, block, s.K(), p.query, s.K(), p.key_t, 1 / (scales.query * scales.key), score);
}

// One group of kHalfChunk queries: their probabilities and gradients of scores by the keys from `begin` on,
// for products that sum over them.
struct Group {
  int64_t begin, first, end, stride;
  uint16_t *prob, *dscore;
};

struct Backward {
  const HalfHeadSizes& s;
  const HalfHeadInputs& in;
  const Parts<const uint16_t> p;
  const HalfHeadScales& scales;
  const HalfHeadBackward& d;
  float dscore_scale;
  const float* delta;

  // Fills the group's rows and writes their queries' gradients.
  void queries(const Group& g, float* score, float* dprob) const {
    const int64_t K = s.K();
    for (int64_t first = g.first; first < g.end; first += kHalfRows) {
      const int64_t n = std::min(kHalfRows, g.end - first), at = (first - g.first) * g.stride;
      const QueryBlock block(in.segment_start, g.begin, first, n);
      scores(s, p, scales, block, score);
      by_keys(s, block, s.V, d.dout_half, d.out_row, p.value_t, 1 / (d.dout_scale * scales.value), dprob);
      half_kernels(s.format).attention_backward(
          seen(s, block, score),
          {dprob, d.lse + first, delta + first, dscore_scale * s.scale, g.prob + at, g.dscore + at, g.stride},
          n);
      half_kernels(s.format).multiply({.M = n,
                                       .N = K,
                                       .K = block.keys(),
                                       .a = g.dscore + at,
                                       .a_row = g.stride,
                                       .a_k = 1,
                                       .b = p.key + g.begin * K,
                                       .b_unit = kHalfUnit,
                                       .b_k = K,
                                       .c = d.dquery + first * in.query_row,
                                       .c_row = in.query_row,
                                       .alpha = 1 / (dscore_scale * scales.key),
                                       .add = false});
    }
  }

  // Gradients of keys [first, first + n) from the group's queries, those from `query` on.
  void keys(const Group& g, int64_t first, int64_t n, int64_t query, float* dkey) const {
    const int64_t K = s.K(), at = (query - g.first) * g.stride + first - g.begin;
    HalfProduct product{.M = n,
                        .N = s.V,
                        .K = g.end - query,
                        .a = g.prob + at,
                        .a_row = 1,
                        .a_k = g.stride,
                        .b = d.dout_half + query * d.out_row,
                        .b_unit = kHalfUnit,
                        .b_k = d.out_row,
                        .c = d.dkv + first * in.kv_row + s.N,
                        .c_row = in.kv_row,
                        .alpha = 1 / (kHalfLimit * d.dout_scale),
                        .add = first < g.first};
    half_kernels(s.format).multiply(product);
    product.N = K, product.a = g.dscore + at, product.b = p.query + query * K, product.b_k = K;
    product.c = dkey + first * K, product.c_row = K, product.alpha = 1 / (dscore_scale * scales.query);
    half_kernels(s.format).multiply(product);
  }
};

}  // namespace

int64_t half_head_values(const HalfHeadSizes& s) {
  return padded(s.S) * (s.K() + s.V) + s.S * (2 * s.K() + s.V);
}

HalfHeadScales half_head_pack(const HalfHeadSizes& s, const HalfHeadInputs& in, uint16_t* packed) {
  const int64_t S = s.S, K = s.K();
  const auto rows = scratch<float>(S * (2 * K + s.V) + S);
  float *query = rows.get(), *key = query + S * K, *value = key + S * K, *squares = value + S * s.V;
  for (int64_t t = 0; t < S; ++t) {
    const float* kv = in.kv + t * in.kv_row;
    std::copy_n(in.query + t * in.query_row, s.N, query + t * K);
    std::copy_n(kv, s.N, key + t * K);
    std::copy_n(kv + s.N, s.V, value + t * s.V);
  }
  const TrainKernels& k = train_kernels();
  k.rope(in.query + s.N, in.query_row, 0, query + s.N, K, 0, in.cos, in.sin, 1, S, 1, s.R);
  k.rope(in.rope_key, s.R, 0, key + s.N, K, 0, in.cos, in.sin, 1, S, 1, s.R);
  const HalfKernels& h = half_kernels(s.format);
  const HalfHeadScales scales{half_scale(h.max_abs(query, S * K)), half_scale(h.max_abs(key, S * K)),
                              half_scale(h.max_abs(value, S * s.V)),
                              longest_row(value, s.V, S, s.V, squares)};
  const Parts<uint16_t> p(s, packed);
  h.round(query, scales.query, p.query, S * K);
  h.round(key, scales.key, p.key, S * K);
  h.round(value, scales.value, p.value, S * s.V);
  h.pack_transposed(key, scales.key, p.key_t, S, K);
  h.pack_transposed(value, scales.value, p.value_t, S, s.V);
  return scales;
}

void half_head_forward(const HalfHeadSizes& s, const uint16_t* packed, const HalfHeadScales& scales,
                       const int64_t* segment_start, float* out, int64_t out_row, float* lse) {
  const Parts<const uint16_t> p(s, packed);
  const int64_t block = std::min(kHalfRows, s.S);
  const auto score = scratch<float>(block * s.S + block);
  const auto prob = scratch<uint16_t>(block * s.S);
  float* inverse = score.get() + block * s.S;
  for (int64_t first = 0; first < s.S; first += kHalfRows) {
    const int64_t n = std::min(kHalfRows, s.S - first);
    const QueryBlock block(segment_start, first_key(segment_start, first, first + n, kHalfUnit), first, n);
    scores(s, p, scales, block, score.get());
    half_kernels(s.format).attention_exp(seen(s, block, score.get()), prob.get(), inverse, lse + first, n);
    float* to = out + first * out_row;
    half_kernels(s.format).multiply({.M = n,
                                     .N = s.V,
                                     .K = block.keys(),
                                     .a = prob.get(),
                                     .a_row = block.keys(),
                                     .a_k = 1,
                                     .b = p.value + block.begin() * s.V,
                                     .b_unit = kHalfUnit,
                                     .b_k = s.V,
                                     .c = to,
                                     .c_row = out_row,
                                     .alpha = 1 / (kHalfLimit * scales.value),
                                     .add = false});
    for (int64_t r = 0; r < n; ++r, to += out_row)
      for (int64_t v = 0; v < s.V; ++v) to[v] *= inverse[r];
  }
}

void half_head_backward(const HalfHeadSizes& s, const HalfHeadInputs& in, const uint16_t* packed,
                        const HalfHeadScales& scales, const HalfHeadBackward& d) {
  const int64_t S = s.S, K = s.K(), block = std::min(kHalfRows, S), rows = std::min(kHalfChunk, S);
  const int64_t stride = padded(S) + kHalfUnit;  // rows a cache line apart from multiples of 4096
  const auto floats = scratch<float>(2 * block * S + S * K + 2 * S);
  const auto halves = scratch<uint16_t>(2 * rows * stride);
  float *score = floats.get(), *dprob = score + block * S, *dkey = dprob + block * S, *delta = dkey + S * K;
  const TrainKernels& k = train_kernels();
  k.row_dot(d.dout, d.out_row, d.out, d.out_row, delta, S, s.V);
  // |dscore| = scale p |dprob - delta|, dprob a product of a row of dout and a value, delta a mean of those.
  const float bound = 2 * s.scale * longest_row(d.dout, d.out_row, S, s.V, delta + S) * scales.value_norm;
  const Backward backward{s, in, Parts<const uint16_t>(s, packed), scales, d, half_scale(bound), delta};
  for (int64_t first = 0; first < S; first += kHalfChunk) {
    const int64_t end = std::min(S, first + kHalfChunk);
    const Group g{first_key(in.segment_start, first, end, kHalfUnit),
                  first,
                  end,
                  stride,
                  halves.get(),
                  halves.get() + rows * stride};
    backward.queries(g, score, dprob);
    if (first > g.begin) backward.keys(g, g.begin, first - g.begin, first, dkey);
    for (int64_t key = first; key < g.end; key += kHalfRows)  // which only later queries see
      backward.keys(g, key, std::min(kHalfRows, g.end - key), key, dkey);
  }
  for (int64_t t = 0; t < S; ++t) std::copy_n(dkey + t * K, s.N, d.dkv + t * in.kv_row);
  k.rope(d.dquery + s.N, in.query_row, 0, d.dquery + s.N, in.query_row, 0, in.cos, in.sin, -1, S, 1, s.R);
  k.rope(dkey + s.N, K, 0, d.drope_key, s.R, 0, in.cos, in.sin, -1, S, 1, s.R);
}

}  // namespace hadal
