#include "hadal/tokenizer/vocabulary.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "hadal/tokenizer/unicode.h"

namespace hadal {
namespace {

// Bytes that stand for themselves; the other 68 get U+0100, U+0101, ... in order.
constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct ByteAlphabet {
  std::array<uint16_t, 256> code{};
  std::array<int16_t, 0x144> byte{};  // by code point; -1: none
  constexpr ByteAlphabet() {
    for (int16_t& b : byte) b = -1;
    uint16_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      code[static_cast<size_t>(b)] = stands_for_itself(b) ? static_cast<uint16_t>(b) : next++;
      byte[code[static_cast<size_t>(b)]] = static_cast<int16_t>(b);
    }
  }
};
constexpr ByteAlphabet kAlphabet;

uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) append_utf8(out, kAlphabet.code[static_cast<unsigned char>(c)]);
  return out;
}

bool append_spelled(std::string& out, std::string_view spelled) {
  const size_t before = out.size();
  out.resize(before + spelled.size());
  char* to = out.data() + before;
  const char* at = spelled.data();
  const char* const end = at + spelled.size();
  while (at < end) {
    const auto lead = static_cast<unsigned char>(*at);
    if (lead > 0x20 && lead < 0x7F) {
      *to++ = *at++;
      continue;
    }
    const uint32_t code = lead >= 0xC2 && lead <= 0xC5 && at + 1 < end
                              ? (lead & 0x1Fu) << 6 | (static_cast<unsigned char>(at[1]) & 0x3Fu)
                              : 0;  // U+0000 is not in the alphabet
    if (code >= kAlphabet.byte.size() || kAlphabet.byte[code] < 0) {
      out.resize(before);
      return false;
    }
    *to++ = static_cast<char>(kAlphabet.byte[code]);
    at += 2;
  }
  out.resize(static_cast<size_t>(to - out.data()));
  return true;
}

uint64_t hash_bytes(std::string_view bytes) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;
  const char* p = bytes.data();
  size_t n = bytes.size();
  uint64_t h = n * kOdd + 0x2545F4914F6CDD1D, word = 0;
  for (; n > 8; p += 8, n -= 8) {
    std::memcpy(&word, p, 8);
    h = mix(h ^ word, kOdd);
  }
  word = 0;
  if (n >= 4) {
    uint32_t low = 0, high = 0;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + n - 4, 4);
    word = static_cast<uint64_t>(high) << 32 | low;
  } else if (n > 0) {
    word = static_cast<uint64_t>(static_cast<unsigned char>(p[0])) << 16 |
           static_cast<uint64_t>(static_cast<unsigned char>(p[n >> 1])) << 8 |
           static_cast<unsigned char>(p[n - 1]);
  }
  return mix(h ^ word, 0xD6E8FEB86659FD93);
}

void Vocabulary::reserve(size_t tokens, size_t bytes) {
  arena_.reserve(bytes);
  spans_.reserve(tokens);
  pending_.reserve(tokens);
}

bool Vocabulary::append(std::string_view spelled, int32_t id) {
  if (has(id)) return false;
  if (static_cast<size_t>(id) >= spans_.size()) spans_.resize(static_cast<size_t>(id) + 1);
  spans_[static_cast<size_t>(id)] = {static_cast<uint32_t>(arena_.size()),
                                     static_cast<uint32_t>(spelled.size())};
  arena_ += spelled;
  ++count_;
  pending_.emplace_back(id, hash_bytes(spelled));
  return true;
}

void Vocabulary::grow_index() {
  size_t size = 1024;
  while (size < 2 * static_cast<size_t>(count_)) size *= 2;
  if (size <= slots_.size()) return;
  decltype(slots_) old(size);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (!slot.id_plus_one) continue;
    const std::string_view text = spelling(static_cast<int32_t>(slot.id_plus_one - 1));
    slots_[slot_of(text, hash_bytes(text))] = slot;
  }
}

std::optional<int32_t> Vocabulary::build_index() {
  constexpr size_t kAhead = 16;  // slots to fetch before they are needed
  grow_index();
  std::optional<int32_t> same;
  for (size_t i = 0; i < pending_.size(); ++i) {
    if (i + kAhead < pending_.size())
      __builtin_prefetch(&slots_[pending_[i + kAhead].second & (slots_.size() - 1)], 1);
    const auto [id, hash] = pending_[i];
    Slot& slot = slots_[slot_of(spelling(id), hash)];
    if (slot.id_plus_one)
      same = id;
    else
      slot = {tag(hash), static_cast<uint32_t>(id) + 1};
  }
  pending_ = {};
  return same;
}

size_t Vocabulary::slot_of(std::string_view spelled, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (!slot.id_plus_one) return i;
    if (slot.tag == tag(hash) && spelling(static_cast<int32_t>(slot.id_plus_one - 1)) == spelled) return i;
  }
}

std::optional<int32_t> Vocabulary::find(std::string_view spelled) const {
  if (slots_.empty()) return std::nullopt;
  const Slot& slot = slots_[slot_of(spelled, hash_bytes(spelled))];
  if (!slot.id_plus_one) return std::nullopt;
  return static_cast<int32_t>(slot.id_plus_one - 1);
}

void Vocabulary::find_batch(std::span<const std::string_view> spelled, std::span<int32_t> ids) const {
  if (slots_.empty()) return std::fill(ids.begin(), ids.end(), -1);
  const size_t mask = slots_.size() - 1;
  std::array<uint64_t, kBatch> hashes;
  for (size_t i = 0; i < spelled.size(); ++i) {
    hashes[i] = hash_bytes(spelled[i]);
    __builtin_prefetch(&slots_[hashes[i] & mask]);
  }
  for (size_t i = 0; i < spelled.size(); ++i)
    if (const Slot& slot = slots_[hashes[i] & mask]; slot.id_plus_one)
      __builtin_prefetch(&spans_[slot.id_plus_one - 1]);
  for (size_t i = 0; i < spelled.size(); ++i)
    if (const Slot& slot = slots_[hashes[i] & mask]; slot.id_plus_one)
      __builtin_prefetch(arena_.data() + spans_[slot.id_plus_one - 1].begin);
  for (size_t i = 0; i < spelled.size(); ++i)
    ids[i] = static_cast<int32_t>(slots_[slot_of(spelled[i], hashes[i])].id_plus_one) - 1;
}

}  // namespace hadal
