#include "hadal/tokenizer.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tokenizer/tokenizer_model.h"
#include "hadal/tokenizer/unicode.h"

namespace hadal {
namespace {

// Remembers where in the output the ids of a piece are, for the pieces of one call.
class PieceCache {
 public:
  static constexpr size_t kMaxPiece = 48;
  struct Entry {
    const char* text = nullptr;
    uint32_t length = 0, count = 0;
    size_t first = 0;
  };

  // The entry for the piece; its text is null if it is another's.
  Entry& entry(std::string_view piece) {
    Entry& e = entries_[hash_bytes(piece) & (entries_.size() - 1)];
    if (e.text && (e.length != piece.size() || std::memcmp(e.text, piece.data(), piece.size()) != 0))
      e.text = nullptr;
    return e;
  }

 private:
  std::vector<Entry> entries_{4096};
};

void encode_piece(const TokenizerModel& model, std::string_view piece, std::vector<int32_t>& out) {
  if (model.ignore_merges) {
    if (const auto id = model.vocabulary.find(spell_bytes(piece))) {
      out.push_back(*id);
      return;
    }
  }
  bpe_encode(model.merges, model.byte_ids, piece, out);
}

void encode_cached(const TokenizerModel& model, PieceCache* cache, std::string_view piece,
                   std::vector<int32_t>& out) {
  if (!cache || piece.size() < 2 || piece.size() > PieceCache::kMaxPiece)
    return encode_piece(model, piece, out);
  PieceCache::Entry& entry = cache->entry(piece);
  const size_t first = out.size();
  if (entry.text) {
    out.resize(first + entry.count);
    std::copy_n(out.begin() + static_cast<std::ptrdiff_t>(entry.first), entry.count,
                out.begin() + static_cast<std::ptrdiff_t>(first));
    return;
  }
  encode_piece(model, piece, out);
  entry = {piece.data(), static_cast<uint32_t>(piece.size()), static_cast<uint32_t>(out.size() - first),
           first};
}

// ByteLevel's own part: the leading space, then its own pattern.
void encode_byte_level(const TokenizerModel& model, PieceCache* cache, std::string_view piece,
                       std::vector<int32_t>& out) {
  const PreTokenizer& pre = model.pre_tokenizer;
  std::string spaced;
  if (pre.prefix_space && piece.front() != ' ') {
    spaced = cat(" ", piece);
    piece = spaced;
    cache = nullptr;  // it points into the text of the call
  }
  if (pre.byte_level.empty()) return encode_cached(model, cache, piece, out);
  std::vector<Piece> parts{{0, piece.size()}};
  split_pieces(pre.byte_level[0], piece, parts);
  for (const Piece& part : parts)
    encode_cached(model, cache, piece.substr(part.begin, part.end - part.begin), out);
}

std::optional<std::string> read_if_there(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  return read_file(path);
}

}  // namespace

void TokenizerModel::encode(std::string_view text, bool parse_special, std::vector<int32_t>& out) const {
  out.reserve(out.size() + text.size() / 4);
  std::optional<PieceCache> cache;
  if (text.size() > 1024) cache.emplace();
  const auto plain = [&](std::string_view part) {
    for (const Piece& piece : pre_tokenizer.pieces(part))
      encode_byte_level(*this, cache ? &*cache : nullptr, part.substr(piece.begin, piece.end - piece.begin),
                        out);
  };
  if (!parse_special) return plain(text);
  for (const Segment& segment : added.split(text)) {
    if (segment.id >= 0)
      out.push_back(segment.id);
    else
      plain(text.substr(segment.begin, segment.end - segment.begin));
  }
}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(path, ignored);
  const std::filesystem::path file = folder ? path / "tokenizer.json" : path;
  const auto config = file.parent_path() / "tokenizer_config.json";
  const auto jinja = file.parent_path() / "chat_template.jinja";
  auto model = std::make_shared<TokenizerModel>();
  {
    const MappedFile mapped(file);
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t slack = (page - mapped.text().size() % page) % page;  // the map's last page reads as zeros
    read_tokenizer_json(mapped.text(), file.string(), *model, slack);
  }
  if (const auto text = read_if_there(config)) read_tokenizer_config(*text, config.string(), *model);
  if (auto text = read_if_there(jinja)) model->chat_template = std::move(*text);
  return Tokenizer(std::move(model));
}

Tokenizer Tokenizer::parse(std::string_view tokenizer_json, std::string_view config_json,
                           std::string_view source) {
  auto model = std::make_shared<TokenizerModel>();
  read_tokenizer_json(tokenizer_json, source, *model);
  if (!config_json.empty()) read_tokenizer_config(config_json, "tokenizer_config.json", *model);
  return Tokenizer(std::move(model));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  size_t bad = 0;
  if (!is_utf8(text, &bad))
    throw Error(ErrorCode::kInvalidArgument, cat("[tokenizer.encode] the text is not UTF-8: byte ", bad,
                                                 " is not UTF-8. Convert the text to UTF-8."));
  if (text.size() >= UINT32_MAX)
    throw Error(ErrorCode::kInvalidArgument, cat("[tokenizer.encode] the text has ", text.size(),
                                                 " bytes, need less than 4 GiB. Cut it."));
  std::vector<int32_t> ids;
  model_->encode(text, parse_special, ids);
  return ids;
}

std::vector<int32_t> Tokenizer::encode_prompt(std::string_view text) const {
  std::vector<int32_t> ids = encode(text), out;
  if (model_->add_bos) {
    if (*model_->add_bos) out.push_back(*model_->bos_id);
  } else {
    out = model_->prompt_prefix;
  }
  if (out.size() == 1 && !ids.empty() && ids.front() == out.front()) out.clear();
  out.insert(out.end(), ids.begin(), ids.end());
  if (model_->add_eos) {
    if (*model_->add_eos) out.push_back(*model_->eos_id);
  } else {
    out.insert(out.end(), model_->prompt_suffix.begin(), model_->prompt_suffix.end());
  }
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes, text;
  for (const int32_t id : ids) {
    if (!is_token(id)) token_bytes(id);  // throws
    if (!skip_special || !is_special(id)) model_->vocabulary.append_bytes(bytes, id);
  }
  text.reserve(bytes.size());
  if (append_lossy_utf8(text, bytes) > 0) text += "\xEF\xBF\xBD";
  return text;
}

int64_t Tokenizer::vocab_size() const {
  return model_->vocabulary.size();
}
std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return model_->vocabulary.find(token);
}
bool Tokenizer::is_token(int32_t id) const {
  return model_->vocabulary.has(id);
}
bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < model_->special.size() &&
         model_->special[static_cast<size_t>(id)];
}
bool Tokenizer::is_added(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < model_->is_added.size() &&
         model_->is_added[static_cast<size_t>(id)];
}

std::string Tokenizer::token(int32_t id) const {
  if (!is_token(id)) token_bytes(id);  // throws
  return std::string(model_->vocabulary.spelling(id));
}

std::string Tokenizer::token_bytes(int32_t id) const {
  if (!is_token(id))
    throw Error(
        ErrorCode::kInvalidArgument,
        cat("[tokenizer.decode] ", id, " is not a token id: need one of the ", model_->vocabulary.count(),
            " ids below ", vocab_size(), ". Was the text made with another tokenizer?"));
  std::string bytes;
  model_->vocabulary.append_bytes(bytes, id);
  return bytes;
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return model_->bos_id;
}
std::optional<int32_t> Tokenizer::eos_id() const {
  return model_->eos_id;
}
std::optional<int32_t> Tokenizer::pad_id() const {
  return model_->pad_id;
}
bool Tokenizer::adds_bos() const {
  return model_->add_bos.value_or(!model_->prompt_prefix.empty());
}
bool Tokenizer::adds_eos() const {
  return model_->add_eos.value_or(!model_->prompt_suffix.empty());
}
const std::string& Tokenizer::chat_template() const {
  return model_->chat_template;
}

TokenizerInfo Tokenizer::info() const {
  TokenizerInfo info{.kind = "byte-level BPE",
                     .vocab_size = vocab_size(),
                     .num_base_tokens = model_->num_base_tokens,
                     .num_merges = model_->num_merges,
                     .num_added_tokens = static_cast<int64_t>(model_->added.tokens().size()),
                     .split_patterns = model_->pre_tokenizer.patterns};
  for (int32_t id = 0; id < vocab_size(); ++id)
    if (is_special(id)) info.special_tokens.push_back(token(id));
  for (const int32_t id : model_->byte_ids) info.missing_bytes += id < 0;
  try {
    info.chat_format = ChatTemplate::detect(*this).name();
  } catch (const Error&) {
    // none, or one of its own: a fact, not a failure
  }
  return info;
}

std::string IncrementalDecoder::push(int32_t id) {
  const std::string bytes = tokenizer_.token_bytes(id);
  if (skip_special_ && tokenizer_.is_special(id)) return "";
  pending_ += bytes;
  std::string text;
  pending_.erase(0, pending_.size() - append_lossy_utf8(text, pending_));
  return text;
}

std::string IncrementalDecoder::flush() {
  const bool open = !pending_.empty();
  pending_.clear();
  return open ? "\xEF\xBF\xBD" : "";
}

}  // namespace hadal
