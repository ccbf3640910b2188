#include "hadal/tokenizer/bpe_train.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <queue>
#include <set>
#include <unordered_map>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tokenizer/added_tokens.h"
#include "hadal/tokenizer/pre_tokenizer.h"
#include "hadal/tokenizer/vocabulary.h"

namespace hadal {
namespace {

constexpr int64_t kBytes = 256;
constexpr int64_t kMaxVocabulary = int64_t{1} << 22;

// Numbers in threes; runs of CJK and kana; then words with their leading space, punctuation, line ends.
const std::array<const char*, 3> kV3Patterns = {R"(\p{N}{1,3})", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
                                                R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
                                                "\r\n"
                                                R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
                                                "\r\n"
                                                R"(]*|\s*[)"
                                                "\r\n"
                                                R"(]+|\s+(?!\S)|\s+)"};
constexpr const char* kOneCharacter = R"([\s\S])";

using Pair = std::pair<int32_t, int32_t>;

struct PairHash {
  size_t operator()(const Pair& pair) const {
    const uint64_t key =
        static_cast<uint64_t>(static_cast<uint32_t>(pair.first)) << 32 | static_cast<uint32_t>(pair.second);
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15) >> 16);
  }
};

struct Word {
  std::vector<int32_t> ids;
  int64_t count = 0;
};

// The tokens so far: specials, bytes, then what the merges made.
struct Learned {
  std::vector<std::string> tokens;  // bytes of each id; specials as spelled
  std::vector<Pair> merges;
  std::unordered_map<std::string, int32_t> id_of;  // by bytes, without the specials
  int64_t num_special = 0;

  int32_t byte_id(char byte) const {
    return static_cast<int32_t>(num_special) + static_cast<unsigned char>(byte);
  }
  // Joins two tokens. Two ways to the same text share one id.
  int32_t merge(Pair pair) {
    merges.push_back(pair);
    std::string joined = tokens[static_cast<size_t>(pair.first)] + tokens[static_cast<size_t>(pair.second)];
    const auto [it, fresh] = id_of.emplace(joined, static_cast<int32_t>(tokens.size()));
    if (fresh) tokens.push_back(std::move(joined));
    return it->second;
  }
};

// Chooses the most frequent pair, smallest ids first among equals, until the vocabulary is full. Counts are
// kept up to date word by word; the queue holds old counts too, and drops them when they come up.
class PairLearner {
 public:
  PairLearner(std::vector<Word> words, Learned& learned) : words_(std::move(words)), learned_(learned) {
    for (uint32_t w = 0; w < words_.size(); ++w)
      for (size_t i = 0; i + 1 < words_[w].ids.size(); ++i) add({words_[w].ids[i], words_[w].ids[i + 1]}, w);
    for (const auto& [pair, places] : pairs_) queue_.push({places.count, pair});
  }

  void run(int64_t vocab_size, int64_t min_count) {
    while (static_cast<int64_t>(learned_.tokens.size()) < vocab_size && !queue_.empty()) {
      const Candidate best = queue_.top();
      queue_.pop();
      const auto it = pairs_.find(best.pair);
      if (it == pairs_.end() || it->second.count != best.count) continue;
      if (best.count < min_count) break;
      merge(best.pair);
    }
  }

 private:
  struct Places {
    int64_t count = 0;
    std::vector<uint32_t> words;  // perhaps with words that lost the pair
  };
  struct Candidate {
    int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  void add(Pair pair, uint32_t word) {
    Places& places = pairs_[pair];
    places.count += words_[word].count;
    if (places.words.empty() || places.words.back() != word) places.words.push_back(word);
  }

  void merge(Pair pair) {
    const int32_t merged = learned_.merge(pair);
    const std::vector<uint32_t> words = std::move(pairs_[pair].words);
    pairs_.erase(pair);
    std::set<Pair> changed;
    for (const uint32_t w : words) merge_in(w, pair, merged, changed);
    for (const Pair& other : changed)
      if (const auto it = pairs_.find(other); it != pairs_.end()) queue_.push({it->second.count, other});
  }

  // Replaces the pair in one word: all its old pairs are discounted, its new ones counted.
  void merge_in(uint32_t w, Pair pair, int32_t merged, std::set<Pair>& changed) {
    std::vector<int32_t>& ids = words_[w].ids;
    bool found = false;
    for (size_t i = 0; i + 1 < ids.size() && !found; ++i) found = Pair(ids[i], ids[i + 1]) == pair;
    if (!found) return;
    std::vector<int32_t> now;
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool here = i + 1 < ids.size() && Pair(ids[i], ids[i + 1]) == pair;
      now.push_back(here ? merged : ids[i]);
      i += here;
    }
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const Pair old(ids[i], ids[i + 1]);
      if (old == pair) continue;
      pairs_[old].count -= words_[w].count;
      changed.insert(old);
    }
    ids = std::move(now);
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      add({ids[i], ids[i + 1]}, w);
      changed.insert({ids[i], ids[i + 1]});
    }
  }

  std::vector<Word> words_;
  Learned& learned_;
  std::unordered_map<Pair, Places, PairHash> pairs_;
  std::priority_queue<Candidate> queue_;
};

void check_options(const TrainTokenizerOptions& options) {
  const auto invalid = [](const std::string& what, std::string_view remedy) {
    throw Error(ErrorCode::kInvalidArgument, cat("[tokenizer.train] ", what, ". ", remedy));
  };
  std::set<std::string> seen;
  for (const std::string& token : options.special_tokens) {
    if (!is_utf8(token) || token.size() < 2 || token.size() > 1024)
      invalid(cat("special token \"", token, "\" is not UTF-8 of 2 to 1024 bytes"),
              "Choose another spelling.");
    if (!seen.insert(token).second) invalid(cat("special token \"", token, "\" is given twice"), "Drop one.");
    std::string bytes;
    if (append_spelled(bytes, token) && bytes.size() == 1)
      invalid(cat("special token \"", token, "\" is the spelling of a byte"), "Choose another.");
  }
  for (const std::string& token : {options.bos_token, options.eos_token, options.pad_token})
    if (!token.empty() && !seen.count(token))
      invalid(cat("\"", token, "\" is BOS, EOS or padding, but not a special token"),
              "Add it to the special tokens.");
  const auto least = static_cast<int64_t>(options.special_tokens.size()) + kBytes;
  if (options.kind == TokenizerKind::kBpe &&
      (options.vocab_size < least || options.vocab_size > kMaxVocabulary))
    invalid(cat("vocab_size is ", options.vocab_size, ", need ", least, " (special tokens and bytes) to ",
                kMaxVocabulary),
            "Choose one in between.");
}

PreTokenizer pre_tokenizer_of(const TrainTokenizerOptions& options) {
  PreTokenizer pre;
  if (options.kind == TokenizerKind::kChar) pre.patterns = {kOneCharacter};
  if (options.kind == TokenizerKind::kBpe) pre.patterns = options.split_patterns;
  if (options.kind == TokenizerKind::kBpe && pre.patterns.empty())
    pre.patterns.assign(kV3Patterns.begin(), kV3Patterns.end());
  for (const std::string& pattern : pre.patterns)
    pre.splits.push_back({Regex::compile(pattern, "split_patterns"), SplitBehavior::kIsolated, false});
  return pre;
}

// Every piece of the texts between special tokens, in order of first sight, with its count.
std::vector<std::pair<std::string_view, int64_t>> count_pieces(const TrainTokenizerOptions& options,
                                                               const PreTokenizer& pre,
                                                               std::span<const std::string_view> texts) {
  AddedTokens specials;
  for (size_t i = 0; i < options.special_tokens.size(); ++i)
    specials.add({.id = static_cast<int32_t>(i), .content = options.special_tokens[i]});
  std::unordered_map<std::string_view, size_t> index;
  std::vector<std::pair<std::string_view, int64_t>> pieces;
  for (size_t t = 0; t < texts.size(); ++t) {
    size_t bad = 0;
    if (!is_utf8(texts[t], &bad))
      throw Error(ErrorCode::kInvalidArgument, cat("[tokenizer.train] text ", t, ": byte ", bad,
                                                   " is not UTF-8. Convert the text to UTF-8."));
    for (const Segment& segment : specials.split(texts[t])) {
      if (segment.id >= 0) continue;
      const std::string_view plain = texts[t].substr(segment.begin, segment.end - segment.begin);
      for (const Piece& piece : pre.pieces(plain)) {
        const std::string_view text = plain.substr(piece.begin, piece.end - piece.begin);
        const auto [it, fresh] = index.emplace(text, pieces.size());
        if (fresh) pieces.emplace_back(text, 0);
        ++pieces[it->second].second;
      }
    }
  }
  return pieces;
}

Learned start(const TrainTokenizerOptions& options) {
  Learned learned{.tokens = options.special_tokens,
                  .num_special = static_cast<int64_t>(options.special_tokens.size())};
  for (int b = 0; b < kBytes; ++b) {
    learned.id_of.emplace(std::string(1, static_cast<char>(b)), static_cast<int32_t>(learned.tokens.size()));
    learned.tokens.emplace_back(1, static_cast<char>(b));
  }
  return learned;
}

void learn_pairs(const TrainTokenizerOptions& options, const PreTokenizer& pre,
                 std::span<const std::string_view> texts, Learned& learned) {
  std::vector<Word> words;
  for (const auto& [text, count] : count_pieces(options, pre, texts)) {
    Word word{.count = count};
    for (const char c : text) word.ids.push_back(learned.byte_id(c));
    words.push_back(std::move(word));
  }
  PairLearner(std::move(words), learned).run(options.vocab_size, options.min_pair_count);
}

// Characters of several bytes are reached byte by byte; their beginnings become tokens too.
void learn_characters(const TrainTokenizerOptions& options, const PreTokenizer& pre,
                      std::span<const std::string_view> texts, Learned& learned) {
  std::set<std::string_view> characters;  // in byte order, which is code point order
  for (const auto& piece : count_pieces(options, pre, texts)) characters.insert(piece.first);
  std::set<Pair> known;
  for (const std::string_view character : characters) {
    int32_t id = learned.byte_id(character[0]);
    for (size_t i = 1; i < character.size(); ++i) {
      const Pair pair(id, learned.byte_id(character[i]));
      if (known.insert(pair).second)
        id = learned.merge(pair);
      else
        id = learned.id_of.at(std::string(character.substr(0, i + 1)));
    }
  }
}

Json pre_tokenizer_json(const PreTokenizer& pre) {
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  if (pre.patterns.empty()) return byte_level;
  Json steps = Json::array();
  for (const std::string& pattern : pre.patterns)
    steps.push_back({{"type", "Split"},
                     {"pattern", Json::object({{"Regex", pattern}})},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  steps.push_back(byte_level);
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

std::string tokenizer_json(const Learned& learned, const PreTokenizer& pre) {
  const auto spell = [&](int32_t id) {
    const std::string& text = learned.tokens[static_cast<size_t>(id)];
    return id < learned.num_special ? text : spell_bytes(text);
  };
  Json added = Json::array(), merges = Json::array();
  Json::object_t vocab;
  for (int32_t id = 0; id < static_cast<int32_t>(learned.tokens.size()); ++id) {
    vocab.Json::object_t::Container::emplace_back(spell(id), id);  // appended: operator[] searches
    if (id < learned.num_special)
      added.push_back({{"id", id},
                       {"content", spell(id)},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
  }
  for (const Pair& pair : learned.merges) merges.push_back(spell(pair.first) + " " + spell(pair.second));
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  const Json document = {{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", std::move(added)},
                         {"normalizer", nullptr},
                         {"pre_tokenizer", pre_tokenizer_json(pre)},
                         {"post_processor", byte_level},
                         {"decoder", byte_level},
                         {"model", Json{{"type", "BPE"},
                                        {"dropout", nullptr},
                                        {"unk_token", nullptr},
                                        {"continuing_subword_prefix", nullptr},
                                        {"end_of_word_suffix", nullptr},
                                        {"fuse_unk", false},
                                        {"byte_fallback", false},
                                        {"vocab", std::move(vocab)},
                                        {"merges", std::move(merges)}}}};
  return dump_json(document, 1) + "\n";
}

std::string config_json(const TrainTokenizerOptions& options) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"add_bos_token", false},
                 {"add_eos_token", false},
                 {"clean_up_tokenization_spaces", false}};
  if (!options.bos_token.empty()) config["bos_token"] = options.bos_token;
  if (!options.eos_token.empty()) config["eos_token"] = options.eos_token;
  if (!options.pad_token.empty()) config["pad_token"] = options.pad_token;
  return dump_json(config, 1) + "\n";
}

}  // namespace

TrainedTokenizer train_tokenizer(const TrainTokenizerOptions& options,
                                 std::span<const std::string_view> texts) {
  check_options(options);
  const PreTokenizer pre = pre_tokenizer_of(options);
  Learned learned = start(options);
  if (options.kind == TokenizerKind::kBpe) learn_pairs(options, pre, texts, learned);
  if (options.kind == TokenizerKind::kChar) learn_characters(options, pre, texts, learned);
  return {.tokenizer_json = tokenizer_json(learned, pre),
          .config_json = config_json(options),
          .vocab_size = static_cast<int64_t>(learned.tokens.size()),
          .num_merges = static_cast<int64_t>(learned.merges.size())};
}

void save_tokenizer(const TrainedTokenizer& trained, const std::filesystem::path& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed)
    throw Error(ErrorCode::kUnavailable, cat("[tokenizer.save] cannot create ", folder.string(), ": ",
                                             failed.message(), ". Choose another folder."));
  write_file(folder / "tokenizer.json", trained.tokenizer_json);
  write_file(folder / "tokenizer_config.json", trained.config_json);
}

TokenizerKind parse_tokenizer_kind(std::string_view name) {
  if (name == "bpe") return TokenizerKind::kBpe;
  if (name == "byte") return TokenizerKind::kByte;
  if (name == "char") return TokenizerKind::kChar;
  throw Error(ErrorCode::kInvalidArgument,
              cat("[tokenizer.train] unknown kind \"", name, "\": need bpe, byte or char. Choose one."));
}

}  // namespace hadal
