// Every code point, against checksums made with HF tokenizers by tools/tokenizer_codepoints.py.
#include <gtest/gtest.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/tokenizer.h"
#include "hadal/tokenizer/unicode.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

class Fnv1a {
 public:
  void add(uint32_t value) {
    for (int i = 0; i < 4; ++i, value >>= 8) hash_ = (hash_ ^ (value & 0xFF)) * 0x100000001B3;
  }
  std::string hex() const {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash_));
    return text;
  }

 private:
  uint64_t hash_ = 0xCBF29CE484222325;
};

TEST(Tokenizer, EveryCodePointHasTheIdsOfHfTokenizers) {
  const Json golden = parse_json(read_file(golden_file("tokenizer", "codepoints.json")), "codepoints.json");
  const bool published = golden["tokenizer_json_sha256"] == kPublishedTokenizerSha256;
  const Tokenizer tokenizer =
      Tokenizer::load(published ? published_tokenizer_file() : golden_tokenizer_file());
  const auto block = golden["block"].get<uint32_t>();
  size_t index = 0, texts = 0;
  for (uint32_t first = 0; first < 0x110000; first += block, ++index) {
    Fnv1a hash;
    for (uint32_t code = first; code < first + block; ++code) {
      if (code >= 0xD800 && code < 0xE000) continue;  // surrogates: not encodable
      std::string character;
      append_utf8(character, code);
      for (const std::string& text : {character, cat("a", character, "b"), cat(" ", character)}) {
        for (const int32_t id : tokenizer.encode(text)) hash.add(static_cast<uint32_t>(id));
        hash.add(UINT32_MAX);
        ++texts;
      }
    }
    EXPECT_EQ(hash.hex(), golden["fnv1a"][index].get<std::string>())
        << "code points from " << std::hex << first;
  }
  EXPECT_EQ(texts, 3u * (0x110000 - 0x800));
}

}  // namespace
}  // namespace hadal
