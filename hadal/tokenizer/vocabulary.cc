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

bool unspell_bytes(std::string_view spelled, std::string& out) {
  out.resize(spelled.size());
  size_t length = 0;
  for (size_t at = 0; at < spelled.size();) {
    const auto lead = static_cast<unsigned char>(spelled[at]);
    uint32_t code = lead;
    size_t width = 1;
    if (lead >= 0xC2 && lead <= 0xC5 && at + 1 < spelled.size()) {
      code = (lead & 0x1Fu) << 6 | (static_cast<unsigned char>(spelled[at + 1]) & 0x3Fu);
      width = 2;
    } else if (lead >= 0x80) {
      return false;
    }
    if (code >= kAlphabet.byte.size() || kAlphabet.byte[code] < 0) return false;
    out[length++] = static_cast<char>(kAlphabet.byte[code]);
    at += width;
  }
  out.resize(length);
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
  size_t slots = 1024;
  while (slots < 2 * tokens) slots *= 2;
  grow(slots);
}

void Vocabulary::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (!slot.id_plus_one) continue;
    const std::string_view text = bytes(static_cast<int32_t>(slot.id_plus_one - 1));
    *slot_of(text, hash_bytes(text)) = slot;
  }
}

// The slot that holds these bytes, or the free one where they belong.
Vocabulary::Slot* Vocabulary::slot_of(std::string_view wanted, uint64_t hash) {
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    Slot& slot = slots_[i];
    if (!slot.id_plus_one) return &slot;
    if (slot.tag == static_cast<uint32_t>(hash >> 32) &&
        bytes(static_cast<int32_t>(slot.id_plus_one - 1)) == wanted)
      return &slot;
  }
}

Vocabulary::Added Vocabulary::add(std::string_view spelled, int32_t id) {
  if (has(id)) return Added::kSameId;
  const bool literal = !unspell_bytes(spelled, scratch_);
  const std::string_view content = literal ? spelled : std::string_view(scratch_);
  if (literal) {
    if (!literals_.emplace(spelled, id).second) return Added::kSameSpelling;
  } else {
    if (static_cast<size_t>(count_ + 1) * 2 > slots_.size()) grow(std::max<size_t>(1024, slots_.size() * 2));
    const uint64_t hash = hash_bytes(content);
    Slot* slot = slot_of(content, hash);
    if (slot->id_plus_one) return Added::kSameSpelling;
    *slot = {static_cast<uint32_t>(hash >> 32), static_cast<uint32_t>(id) + 1};
  }
  if (static_cast<size_t>(id) >= spans_.size()) spans_.resize(static_cast<size_t>(id) + 1);
  spans_[static_cast<size_t>(id)] = {.begin = static_cast<uint32_t>(arena_.size()),
                                     .length = static_cast<uint32_t>(content.size()) & 0x7FFFFFFF,
                                     .literal = literal};
  arena_ += content;
  ++count_;
  return Added::kOk;
}

std::optional<int32_t> Vocabulary::find_bytes(std::string_view wanted) const {
  if (slots_.empty()) return std::nullopt;
  const uint64_t hash = hash_bytes(wanted);
  const Slot* slot = const_cast<Vocabulary*>(this)->slot_of(wanted, hash);  // slot_of changes nothing
  if (!slot->id_plus_one) return std::nullopt;
  return static_cast<int32_t>(slot->id_plus_one - 1);
}

std::optional<int32_t> Vocabulary::find(std::string_view spelled) const {
  std::string content;
  if (unspell_bytes(spelled, content)) return find_bytes(content);
  const auto place = literals_.find(std::string(spelled));
  if (place == literals_.end()) return std::nullopt;
  return place->second;
}

std::string Vocabulary::spelling(int32_t id) const {
  return spans_[static_cast<size_t>(id)].literal ? std::string(bytes(id)) : spell_bytes(bytes(id));
}

}  // namespace hadal
