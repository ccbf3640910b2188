// SHA-256 (FIPS 180-4): the fingerprint of files.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hadal {

using Sha256Digest = std::array<uint8_t, 32>;

// update() as often as wanted, then finish() once.
class Sha256 {
 public:
  void update(const void* data, size_t size);
  void update(std::string_view text) { update(text.data(), text.size()); }
  Sha256Digest finish();

 private:
  void block(const uint8_t* data);

  std::array<uint32_t, 8> state_ = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                    0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
  std::array<uint8_t, 64> pending_{};
  uint64_t total_ = 0;  // bytes so far
};

Sha256Digest sha256(std::string_view text);

std::string hex(const Sha256Digest& digest);  // 64 lower-case digits

}  // namespace hadal
