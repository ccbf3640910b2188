#include "hadal/network/latent_pages.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "hadal/base/number_formats.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/kernels/half.h"
#include "hadal/network/rotation.h"

namespace hadal {
namespace {

constexpr int64_t kInt8Scale = 64, kFp8Scale = 128;  // values that share a scale

int64_t scale_group(CacheFormat format) {
  return format == CacheFormat::kInt8 ? kInt8Scale : kFp8Scale;
}
int64_t num_scales(CacheFormat format, int64_t C) {
  const int64_t group = scale_group(format);
  return (C + group - 1) / group;
}

int64_t round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// A row is [codes C, to 4 bytes][scales fp32][key bf16 R] in the two quantised formats.
struct RowLayout {
  int64_t scales, key;
};
RowLayout layout(CacheFormat format, int64_t C) {
  const int64_t scales = round_up(C, 4);
  return {scales, scales + num_scales(format, C) * 4};
}

void store_bf16(const float* from, std::byte* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t bits = f32_to_bf16(from[i]);
    std::memcpy(to + 2 * i, &bits, 2);
  }
}

void quantise_latent(CacheFormat format, const float* x, int64_t C, std::byte* row) {
  const int64_t group = scale_group(format);
  const float most = format == CacheFormat::kInt8 ? 127.0f : 448.0f;
  for (int64_t first = 0, g = 0; first < C; first += group, ++g) {
    const int64_t last = std::min(C, first + group);
    float amax = 0;
    for (int64_t i = first; i < last; ++i) amax = std::max(amax, std::fabs(x[i]));
    const float scale = amax > 0 ? amax / most : 1.0f;
    std::memcpy(row + layout(format, C).scales + 4 * g, &scale, 4);
    for (int64_t i = first; i < last; ++i)
      row[i] = format == CacheFormat::kInt8
                   ? static_cast<std::byte>(static_cast<int8_t>(std::nearbyint(x[i] / scale)))
                   : static_cast<std::byte>(f32_to_e4m3(x[i] / scale));
  }
}

void dequantise_int8(const std::byte* row, int64_t C, float* out) {
  const std::byte* scales = row + layout(CacheFormat::kInt8, C).scales;
  for (int64_t first = 0, g = 0; first < C; first += kInt8Scale, ++g) {
    float scale;
    std::memcpy(&scale, scales + 4 * g, 4);
    const int8_t* code = reinterpret_cast<const int8_t*>(row) + first;
    const int64_t n = std::min(kInt8Scale, C - first);
    for (int64_t i = 0; i < n; ++i) out[first + i] = static_cast<float>(code[i]) * scale;
  }
}

int64_t latent_row_bytes(const MlaConfig& mla, CacheFormat format) {
  const int64_t C = mla.kv_latent, R = mla.rope_dim;
  if (format == CacheFormat::kF32) return 4 * (C + R);
  if (format == CacheFormat::kBF16) return 2 * (C + R);
  return round_up(layout(format, C).key + 2 * R, 4);
}

int64_t index_row_bytes(const MlaConfig& mla, CacheFormat format) {
  return (format == CacheFormat::kF32 ? 4 : 2) * mla.index_dim();
}

}  // namespace

const char* name(CacheFormat format) {
  switch (format) {
    case CacheFormat::kF32:
      return "f32";
    case CacheFormat::kBF16:
      return "bf16";
    case CacheFormat::kInt8:
      return "int8";
    case CacheFormat::kFp8:
      return "fp8";
  }
  return "?";
}

CacheFormat cache_format(std::string_view text) {
  for (const CacheFormat format :
       {CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kInt8, CacheFormat::kFp8})
    if (text == name(format)) return format;
  throw Error(
      ErrorCode::kInvalidArgument,
      cat("[network.cache_format] \"", text, "\" is no format of the cache. Choose f32, bf16, int8 or fp8."));
}

bool attends_on_bf16(CacheFormat format) {
  return format != CacheFormat::kF32 && half_is_fast(HalfFormat::kBf16);
}

int64_t cache_row_bytes(const MlaConfig& mla, CacheFormat format) {
  return latent_row_bytes(mla, format) + index_row_bytes(mla, format);
}

int64_t page_bytes(const MlaConfig& mla, CacheFormat format, int64_t layers) {
  return kPageTokens * layers * cache_row_bytes(mla, format);
}

LatentPages::LatentPages(const MlaConfig& mla, int64_t layers, int64_t pages, CacheFormat format)
    : C_(mla.kv_latent),
      R_(mla.rope_dim),
      Y_(mla.index_dim()),
      pages_(pages),
      format_(format),
      latent_bytes_(latent_row_bytes(mla, format)),
      index_bytes_(index_row_bytes(mla, format)),
      layers_(static_cast<size_t>(layers)) {
  try {
    for (AlignedBuffer<std::byte>& layer : layers_) layer.ensure(pages * kPageTokens * row_bytes());
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kExhausted,
                cat("[network.latent_pages] no memory for ", pages, " pages of ", kPageTokens, " tokens in ",
                    layers, " layers: ", pages * page_bytes(mla, format, layers),
                    " bytes. Ask for fewer cached tokens, or a smaller cache format."));
  }
}

void LatentPages::write(int64_t layer, int32_t page_id, int64_t offset, const float* latent,
                        const float* key) {
  std::byte* row = page(layer, page_id) + offset * latent_bytes_;
  if (format_ == CacheFormat::kF32) {
    std::memcpy(row, latent, static_cast<size_t>(C_) * 4);
    std::memcpy(row + 4 * C_, key, static_cast<size_t>(R_) * 4);
  } else if (format_ == CacheFormat::kBF16) {
    store_bf16(latent, row, C_);
    store_bf16(key, row + 2 * C_, R_);
  } else {
    quantise_latent(format_, latent, C_, row);
    store_bf16(key, row + layout(format_, C_).key, R_);
  }
}

void LatentPages::write_index_key(int64_t layer, int32_t page_id, int64_t offset, const float* key) {
  std::byte* row = page(layer, page_id) + kPageTokens * latent_bytes_ + offset * index_bytes_;
  if (format_ == CacheFormat::kF32)
    std::memcpy(row, key, static_cast<size_t>(Y_) * 4);
  else
    store_bf16(key, row, Y_);
}

WeightView LatentPages::index_keys(int64_t layer, int32_t page_id, int64_t count) const {
  return {index_format(), count, Y_, page(layer, page_id) + kPageTokens * latent_bytes_};
}

void LatentPages::prefetch(int64_t layer, int32_t page, int64_t count) const {
  constexpr int64_t kLine = 64;
  const std::byte* from = this->page(layer, page);
  for (int64_t at = 0; at < count * latent_bytes_; at += kLine) __builtin_prefetch(from + at, 0, 2);
}

// A key as it is stored, its first R channels. key [R]: scratch.
void LatentPages::turn(std::byte* stored, void (*rotate)(float*, const float*, const float*, int64_t),
                       const float* cos, const float* sin, float* key) const {
  const bool is_f32 = format_ == CacheFormat::kF32;
  if (is_f32)
    std::memcpy(key, stored, static_cast<size_t>(R_) * 4);
  else
    infer_kernels().decode_rows({WeightFormat::kBF16, 1, R_, stored}, 0, 1, key, R_);
  rotate(key, cos, sin, R_);
  if (is_f32)
    std::memcpy(stored, key, static_cast<size_t>(R_) * 4);
  else
    store_bf16(key, stored, R_);
}

void LatentPages::move(int64_t layer, PageMove pages, int64_t count, const float* cos, const float* sin) {
  std::byte *to = page(layer, pages.to), *index_to = to + kPageTokens * latent_bytes_;
  if (pages.from != pages.to) {
    const std::byte* from = page(layer, pages.from);
    std::memcpy(to, from, static_cast<size_t>(count * latent_bytes_));
    std::memcpy(index_to, from + kPageTokens * latent_bytes_, static_cast<size_t>(count * index_bytes_));
  }
  const int64_t at = format_ == CacheFormat::kF32    ? 4 * C_
                     : format_ == CacheFormat::kBF16 ? 2 * C_
                                                     : layout(format_, C_).key;
  std::vector<float> key(static_cast<size_t>(R_));
  for (int64_t row = 0; row < count; ++row) {
    const float *c = cos + row * R_ / 2, *s = sin + row * R_ / 2;
    turn(to + row * latent_bytes_ + at, rotate_neighbours, c, s, key.data());
    if (Y_ > 0) turn(index_to + row * index_bytes_, rotate_halves, c, s, key.data());
  }
}

const float* LatentPages::read(int64_t layer, int32_t page_id, int64_t count, float* scratch) const {
  return decode(page(layer, page_id), count, scratch);
}

// Rows that lie together; scratch is used unless they are fp32 already.
const float* LatentPages::decode(const std::byte* rows, int64_t count, float* scratch) const {
  if (format_ == CacheFormat::kF32) return reinterpret_cast<const float*>(rows);
  const InferKernels& kernels = infer_kernels();
  const int64_t width = row_stride();
  if (format_ == CacheFormat::kBF16) {
    kernels.decode_rows({WeightFormat::kBF16, count, width, rows}, 0, count, scratch, width);
    return scratch;
  }
  const RowLayout at = layout(format_, C_);
  for (int64_t i = 0; i < count; ++i) {
    const std::byte* row = rows + i * latent_bytes_;
    float* out = scratch + i * width;
    if (format_ == CacheFormat::kInt8)
      dequantise_int8(row, C_, out);
    else
      kernels.decode_rows({WeightFormat::kFp8, 1, C_, row, row + at.scales}, 0, 1, out, width);
    kernels.decode_rows({WeightFormat::kBF16, 1, R_, row + at.key}, 0, 1, out + C_, width);
  }
  return scratch;
}

const uint16_t* LatentPages::read_bf16(int64_t layer, int32_t page_id, int64_t count, float* scratch,
                                       uint16_t* rounded) const {
  if (format_ == CacheFormat::kBF16) return reinterpret_cast<const uint16_t*>(page(layer, page_id));
  const float* rows = read(layer, page_id, count, scratch);
  half_kernels(HalfFormat::kBf16).round(rows, 1, rounded, count * row_stride());
  return rounded;
}

const std::byte* LatentPages::row_of(int64_t layer, std::span<const int32_t> pages, int32_t position) const {
  return page(layer, pages[static_cast<size_t>(position / kPageTokens)]) +
         position % kPageTokens * latent_bytes_;
}

void LatentPages::gather(int64_t layer, std::span<const int32_t> pages, std::span<const int32_t> positions,
                         float* out) const {
  for (const int32_t position : positions) {
    const float* row = decode(row_of(layer, pages, position), 1, out);
    if (row != out) std::copy_n(row, row_stride(), out);
    out += row_stride();
  }
}

void LatentPages::gather_bf16(int64_t layer, std::span<const int32_t> pages,
                              std::span<const int32_t> positions, float* scratch, uint16_t* out) const {
  const int64_t width = row_stride();
  if (format_ != CacheFormat::kBF16) {
    gather(layer, pages, positions, scratch);
    half_kernels(HalfFormat::kBf16).round(scratch, 1, out, std::ssize(positions) * width);
    return;
  }
  for (const int32_t position : positions) {
    std::memcpy(out, row_of(layer, pages, position), static_cast<size_t>(latent_bytes_));
    out += width;
  }
}

}  // namespace hadal
