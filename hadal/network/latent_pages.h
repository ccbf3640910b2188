// Storage of the latent cache by pages: per token and layer the normed latent [C] and the rotated key [R],
// nothing per head; with sparse attention the indexer's key [Y], too. Keys are stored after RoPE: their
// rotation depends on their own position only. A page of a layer holds the rows of latent and key, then the
// index keys.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "hadal/base/aligned_buffer.h"
#include "hadal/config.h"
#include "hadal/kernels/infer.h"

namespace hadal {

constexpr int64_t kPageTokens = 64;
constexpr int kPageLayout = 1;  // of the bytes in a page; counted up when they change: saved caches hold them

// Rows of a page to be copied with their keys turned to the new positions; from may equal to.
struct PageMove {
  int32_t from = 0, to = 0;
};

// kInt8: the latent as int8 with an fp32 scale per 64 values, the key as bf16. kFp8: the latent as e4m3 with
// an fp32 scale per 128 values, the key as bf16. Index keys are fp32 in kF32, bf16 in all others.
enum class CacheFormat { kF32, kBF16, kInt8, kFp8 };
const char* name(CacheFormat format);  // "f32", "bf16", "int8", "fp8"
// Throws invalid_argument.
CacheFormat cache_format(std::string_view name);

// Bytes of one token in one layer, all that is cached; of one page in `layers` layers.
int64_t cache_row_bytes(const MlaConfig& mla, CacheFormat format);
int64_t page_bytes(const MlaConfig& mla, CacheFormat format, int64_t layers);

// Whether attention over pages of this format multiplies in bf16: queries, probabilities and what is read are
// rounded to bf16, sums and softmax are fp32. Where the processor has the instruction (AVX512-BF16) and
// nothing is kept in fp32.
bool attends_on_bf16(CacheFormat format);

class LatentPages {
 public:
  // Room for `pages` pages of kPageTokens tokens in `layers` layers. Memory is touched only when written.
  // Throws exhausted if the machine has not that much address space.
  LatentPages(const MlaConfig& mla, int64_t layers, int64_t pages, CacheFormat format);

  int64_t pages() const { return pages_; }
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  CacheFormat format() const { return format_; }
  int64_t row_bytes() const { return latent_bytes_ + index_bytes_; }
  int64_t latent_bytes() const { return latent_bytes_; }  // of it latent and key
  int64_t index_bytes() const { return index_bytes_; }    // and the index key

  // Stores latent [C] and key [R] (rotated) of the token at `offset` of `page`.
  void write(int64_t layer, int32_t page, int64_t offset, const float* latent, const float* key);
  // The index key [Y] (rotated) of that token.
  void write_index_key(int64_t layer, int32_t page, int64_t offset, const float* key);

  // Rows [C+R] of the first `count` tokens of a page as fp32, row_stride() floats apart: the storage itself
  // for kF32, else decoded into scratch [count * row_stride()].
  const float* read(int64_t layer, int32_t page, int64_t count, float* scratch) const;
  int64_t row_stride() const { return C_ + R_; }
  // The same as bf16: the storage itself for kBF16.
  const uint16_t* read_bf16(int64_t layer, int32_t page, int64_t count, float* scratch,
                            uint16_t* rounded) const;

  // Rows [C+R] of the tokens at `positions` of a sequence that has these pages, row_stride() apart, as fp32
  // and as bf16: bit for bit what read() gives of each.
  void gather(int64_t layer, std::span<const int32_t> pages, std::span<const int32_t> positions,
              float* out) const;
  void gather_bf16(int64_t layer, std::span<const int32_t> pages, std::span<const int32_t> positions,
                   float* scratch, uint16_t* out) const;

  // The index keys of the first `count` tokens of a page, [count, Y].
  WeightView index_keys(int64_t layer, int32_t page, int64_t count) const;
  WeightFormat index_format() const {
    return format_ == CacheFormat::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
  }

  // Asks for the first `count` rows of a page to be brought near: reads wait for memory otherwise.
  void prefetch(int64_t layer, int32_t page, int64_t count) const;

  // Copies the first `count` rows of page `from` to page `to` (which may be the same) and turns the pairs of
  // each key, and index key, by the angle of (cos, sin) [count, R/2]. Latents stay bit for bit.
  void move(int64_t layer, PageMove pages, int64_t count, const float* cos, const float* sin);

  // The raw bytes of a page in a layer: kPageTokens * row_bytes().
  std::byte* page(int64_t layer, int32_t page) {
    return layers_[static_cast<size_t>(layer)].data() + page * kPageTokens * row_bytes();
  }
  const std::byte* page(int64_t layer, int32_t page) const {
    return layers_[static_cast<size_t>(layer)].data() + page * kPageTokens * row_bytes();
  }

 private:
  const float* decode(const std::byte* rows, int64_t count, float* scratch) const;
  void turn(std::byte* stored, void (*rotate)(float*, const float*, const float*, int64_t), const float* cos,
            const float* sin, float* key) const;
  const std::byte* row_of(int64_t layer, std::span<const int32_t> pages, int32_t position) const;

  int64_t C_, R_, Y_, pages_;
  CacheFormat format_;
  int64_t latent_bytes_, index_bytes_;
  std::vector<AlignedBuffer<std::byte>> layers_;
};

}  // namespace hadal
