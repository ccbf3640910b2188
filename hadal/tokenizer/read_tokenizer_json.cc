// tokenizer.json -> TokenizerModel. Every field that would change the ids is either executed or refused by
// name.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tokenizer/json_reader.h"
#include "hadal/tokenizer/tokenizer_model.h"

namespace hadal {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr size_t kMaxAddedLength = 1024;  // bytes; bounds the work per byte of text
constexpr size_t kMaxMerges = size_t{1} << 25;

// ---- model ----

void refuse_unknown_bpe(const JsonReader& in, const object& model) {
  constexpr std::string_view kSupported =
      "byte-level BPE without dropout, unk_token, affixes or byte_fallback";
  if (const auto type = in.member(model, "type"))
    if (const auto name = in.as_string(*type, "model.type"); name != "BPE")
      in.unsupported("model.type", cat("\"", name, "\""), kSupported);
  if (const auto dropout = in.member(model, "dropout")) {
    double value = 0;
    if (dropout->get(value) != simdjson::SUCCESS) in.corrupt("model.dropout", "is not a number");
    if (value != 0) in.unsupported("model.dropout", cat(value), kSupported);
  }
  for (const std::string_view key : {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto value = in.member(model, key);
    if (!value) continue;
    const std::string field = JsonReader::join("model", key);
    if (const auto text = in.as_string(*value, field); !text.empty() || key == "unk_token")
      in.unsupported(field, cat("\"", text, "\""), kSupported);
  }
  if (in.flag(model, "model", "byte_fallback", false))
    in.unsupported("model.byte_fallback", "true", kSupported);
  in.flag(model, "model", "fuse_unk", false);
}

void read_vocabulary(const JsonReader& in, const object& vocab, size_t file_bytes, TokenizerModel& model) {
  model.vocabulary.reserve(vocab.size(), file_bytes / 2);
  for (const auto& entry : vocab) {
    const auto field = [&] { return cat("model.vocab[\"", entry.key, "\"]"); };
    int64_t id = -1;
    if (entry.value.get(id) != simdjson::SUCCESS || id < 0 || id > JsonReader::kMaxId)
      in.as_id(entry.value, field());
    if (!model.vocabulary.append(entry.key, static_cast<int32_t>(id)))
      in.corrupt(field(), cat("has id ", id, ", as has \"",
                              model.vocabulary.spelling(static_cast<int32_t>(id)), "\""));
  }
  if (const auto same = model.vocabulary.build_index())
    in.corrupt("model.vocab", cat("has \"", model.vocabulary.spelling(*same), "\" twice"));
  if (model.vocabulary.count() == 0) in.corrupt("model.vocab", "is empty");
  model.num_base_tokens = model.vocabulary.count();
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    model.byte_ids[static_cast<size_t>(b)] = model.vocabulary.find(spell_bytes({&byte, 1})).value_or(-1);
  }
}

class MergeReader {
 public:
  MergeReader(const JsonReader& in, TokenizerModel& model) : in_(in), model_(model) {}

  void read(const array& merges) {
    size_t count = 0;
    for ([[maybe_unused]] const element merge : merges) ++count;  // size() of simdjson saturates at 2^24 - 1
    if (count > kMaxMerges) in_.corrupt("model.merges", cat("has ", count, " entries"));
    model_.merges.reserve(count);
    for (const element merge : merges) {
      const auto [left, right] = parts(merge, rank_ + batch_size_ / 2);
      spelled_[batch_size_++] = left;
      spelled_[batch_size_++] = right;
      if (batch_size_ == Vocabulary::kBatch) flush();
    }
    flush();
    model_.num_merges = rank_;
  }

 private:
  static std::string field(size_t rank) { return cat("model.merges[", rank, "]"); }

  std::pair<std::string_view, std::string_view> parts(element merge, size_t rank) const {
    std::string_view text;
    if (merge.get(text) == simdjson::SUCCESS) {
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
        in_.corrupt(field(rank), cat("is \"", text, "\", need two tokens and one space"));
      return {text.substr(0, space), text.substr(space + 1)};
    }
    array pair;
    if (merge.get(pair) != simdjson::SUCCESS || pair.size() != 2)
      in_.corrupt(field(rank), "is neither \"a b\" nor [\"a\", \"b\"]");
    return {in_.as_string(pair.at(0).value(), field(rank)), in_.as_string(pair.at(1).value(), field(rank))};
  }

  // Looks up and stores the merges gathered so far.
  void flush() {
    std::array<int32_t, Vocabulary::kBatch> ids;
    model_.vocabulary.find_batch({spelled_.data(), batch_size_}, {ids.data(), batch_size_});
    for (size_t i = 0; i < batch_size_; ++i)
      if (ids[i] < 0)
        in_.corrupt(field(rank_ + i / 2), cat("names \"", spelled_[i], "\", which is not in model.vocab"));
    for (size_t i = 0; i < batch_size_; i += 2) model_.merges.prefetch(ids[i], ids[i + 1]);
    for (size_t i = 0; i < batch_size_; i += 2) {
      const int32_t id = merged(spelled_[i], spelled_[i + 1]);
      model_.merges.set(ids[i], ids[i + 1], {rank_++, id});
    }
    batch_size_ = 0;
  }

  // The id of left + right. Vocabularies list merged tokens in the order of the merges, so the next id is
  // tried first.
  int32_t merged(std::string_view left, std::string_view right) {
    const Vocabulary& vocabulary = model_.vocabulary;
    if (vocabulary.has(next_)) {
      const std::string_view guess = vocabulary.spelling(next_);
      if (guess.size() == left.size() + right.size() && guess.starts_with(left) && guess.ends_with(right))
        return next_++;
    }
    const auto id = vocabulary.find(cat(left, right));
    if (!id) in_.corrupt(field(rank_), cat("makes \"", left, right, "\", which is not in model.vocab"));
    next_ = *id + 1;
    return *id;
  }

  const JsonReader& in_;
  TokenizerModel& model_;
  uint32_t rank_ = 0;
  int32_t next_ = 256;
  size_t batch_size_ = 0;  // halves of merges
  std::array<std::string_view, Vocabulary::kBatch> spelled_;
};

void read_model(const JsonReader& in, const object& root, size_t file_bytes, TokenizerModel& model) {
  const object json = in.as_object(in.need(root, "", "model"), "model");
  in.refuse_same_keys(json, "model");
  refuse_unknown_bpe(in, json);
  model.ignore_merges = in.flag(json, "model", "ignore_merges", false);
  read_vocabulary(in, in.as_object(in.need(json, "model", "vocab"), "model.vocab"), file_bytes, model);
  MergeReader(in, model).read(in.as_array(in.need(json, "model", "merges"), "model.merges"));
}

// ---- added tokens ----

void read_added_tokens(const JsonReader& in, const object& root, TokenizerModel& model) {
  const auto list = in.member(root, "added_tokens");
  if (!list) return;
  std::vector<std::string> seen;
  size_t index = 0;
  for (const element entry : in.as_array(*list, "added_tokens")) {
    const std::string field = cat("added_tokens[", index++, "]");
    const object json = in.as_object(entry, field);
    AddedToken token;
    token.id = in.as_id(in.need(json, field, "id"), field + ".id");
    token.content = in.as_string(in.need(json, field, "content"), field + ".content");
    token.special = in.flag(json, field, "special", false);
    token.normalized = in.flag(json, field, "normalized", !token.special);
    token.lstrip = in.flag(json, field, "lstrip", false);
    token.rstrip = in.flag(json, field, "rstrip", false);
    token.single_word = in.flag(json, field, "single_word", false);
    if (token.content.empty()) in.corrupt(field + ".content", "is empty");
    if (token.content.size() > kMaxAddedLength)
      in.unsupported(field + ".content", cat("of ", token.content.size(), " bytes"),
                     "added tokens up to 1024 bytes");
    const auto known = model.vocabulary.find(token.content);
    if (known && *known != token.id)
      in.corrupt(field, cat("gives \"", token.content, "\" the id ", token.id, ", but it has ", *known));
    if (!known && !model.vocabulary.append(token.content, token.id))
      in.corrupt(field, cat("\"", token.content, "\" has id ", token.id, ", as has \"",
                            model.vocabulary.spelling(token.id), "\""));
    model.vocabulary.build_index();
    seen.push_back(token.content);
    model.added.add(std::move(token));
  }
  std::sort(seen.begin(), seen.end());
  if (const auto twice = std::adjacent_find(seen.begin(), seen.end()); twice != seen.end())
    in.corrupt("added_tokens", cat("has \"", *twice, "\" twice"));
  model.special.resize(static_cast<size_t>(model.vocabulary.size()));
  model.is_added.resize(model.special.size());
  for (const AddedToken& token : model.added.tokens()) {
    model.is_added[static_cast<size_t>(token.id)] = true;
    if (token.special) model.special[static_cast<size_t>(token.id)] = true;
  }
}

// ---- normalizer, pre_tokenizer, decoder, post_processor ----

void refuse_normalizer(const JsonReader& in, const object& root) {
  const auto value = in.member(root, "normalizer");
  if (!value) return;
  const object json = in.as_object(*value, "normalizer");
  const std::string_view type = in.type_of(json, "normalizer");
  if (type == "Sequence") {
    const array list = in.as_array(in.need(json, "normalizer", "normalizers"), "normalizer.normalizers");
    if (list.size() == 0) return;
    const object first = in.as_object(list.at(0).value(), "normalizer.normalizers[0]");
    in.unsupported("normalizer.normalizers[0]",
                   cat("\"", in.type_of(first, "normalizer.normalizers[0]"), "\""),
                   "no normalizer (null or an empty Sequence)");
  }
  in.unsupported("normalizer", cat("\"", type, "\""), "no normalizer (null or an empty Sequence)");
}

class PreTokenizerReader {
 public:
  PreTokenizerReader(const JsonReader& in, PreTokenizer& out) : in_(in), out_(out) {}

  void read(const object& root) {
    const auto value = in_.member(root, "pre_tokenizer");
    if (!value) in_.unsupported("pre_tokenizer", "null", kSupported);
    step(*value, "pre_tokenizer", 0);
    if (!byte_level_) in_.unsupported("pre_tokenizer", "without a ByteLevel at its end", kSupported);
  }

 private:
  static constexpr std::string_view kSupported = "a Sequence of Split and Digits that ends in ByteLevel";

  void step(element value, const std::string& field, int depth) {
    const object json = in_.as_object(value, field);
    const std::string_view type = in_.type_of(json, field);
    if (type == "Sequence" && depth < 8) {
      const std::string list = field + ".pretokenizers";
      size_t index = 0;
      for (const element child : in_.as_array(in_.need(json, field, "pretokenizers"), list))
        step(child, cat(list, "[", index++, "]"), depth + 1);
      return;
    }
    if (byte_level_) in_.unsupported(field, cat("\"", type, "\" after ByteLevel"), kSupported);
    if (type == "Split") {
      split(json, field);
    } else if (type == "Digits") {
      const bool individual = in_.flag(json, field, "individual_digits", false);
      add(Regex::compile(kDigitsPattern, field), kDigitsPattern,
          individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false);
    } else if (type == "ByteLevel") {
      byte_level_ = true;
      out_.prefix_space = in_.flag(json, field, "add_prefix_space", true);
      if (in_.flag(json, field, "use_regex", true))
        out_.byte_level.push_back(
            {Regex::compile(kByteLevelPattern, field), SplitBehavior::kIsolated, false});
    } else {
      in_.unsupported(field, cat("\"", type, "\""), kSupported);
    }
  }

  void split(const object& json, const std::string& field) {
    const std::string at = field + ".pattern";
    const object pattern = in_.as_object(in_.need(json, field, "pattern"), at);
    const auto regex = in_.member(pattern, "Regex"), literal = in_.member(pattern, "String");
    if (!regex == !literal) in_.corrupt(at, "has neither Regex nor String, or both");
    const std::string_view text = in_.as_string(regex ? *regex : *literal, at);
    add(regex ? Regex::compile(text, in_.place(at)) : Regex::literal(text), text, behavior(json, field),
        in_.flag(json, field, "invert", false));
  }

  SplitBehavior behavior(const object& json, const std::string& field) const {
    const std::string at = field + ".behavior";
    const std::string_view name = in_.as_string(in_.need(json, field, "behavior"), at);
    if (name == "Isolated") return SplitBehavior::kIsolated;
    if (name == "Removed") return SplitBehavior::kRemoved;
    if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
    if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
    if (name == "Contiguous") return SplitBehavior::kContiguous;
    in_.corrupt(at, cat("is \"", name,
                        "\", need Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous"));
  }

  void add(Regex regex, std::string_view text, SplitBehavior behavior, bool invert) {
    out_.splits.push_back({std::move(regex), behavior, invert});
    out_.patterns.emplace_back(text);
  }

  const JsonReader& in_;
  PreTokenizer& out_;
  bool byte_level_ = false;
};

void check_decoder(const JsonReader& in, const object& root) {
  const auto value = in.member(root, "decoder");
  if (!value) in.unsupported("decoder", "null", "the decoder ByteLevel");
  const std::string_view type = in.type_of(in.as_object(*value, "decoder"), "decoder");
  if (type != "ByteLevel") in.unsupported("decoder", cat("\"", type, "\""), "the decoder ByteLevel");
}

// TemplateProcessing's "single": what stands before and after the text ($A).
void read_template(const JsonReader& in, const object& json, const std::string& field,
                   TokenizerModel& model) {
  bool after_text = false;
  size_t index = 0;
  for (const element entry : in.as_array(in.need(json, field, "single"), field + ".single")) {
    const std::string at = cat(field, ".single[", index++, "]");
    const object item = in.as_object(entry, at);
    if (in.member(item, "Sequence")) {
      if (after_text) in.unsupported(at, "a second text", "one $A with special tokens around it");
      after_text = true;
      continue;
    }
    const object special = in.as_object(in.need(item, at, "SpecialToken"), at + ".SpecialToken");
    const std::string_view name = in.as_string(in.need(special, at, "id"), at + ".SpecialToken.id");
    const object table = in.as_object(in.need(json, field, "special_tokens"), field + ".special_tokens");
    const std::string named = cat(field, ".special_tokens[\"", name, "\"]");
    const auto token = in.member(table, name);
    if (!token) in.corrupt(named, "is missing");
    for (const element id : in.as_array(in.need(in.as_object(*token, named), named, "ids"), named + ".ids")) {
      const int32_t value = in.as_id(id, named + ".ids");
      if (!model.vocabulary.has(value)) in.corrupt(named + ".ids", cat("has ", value, ", which is no token"));
      (after_text ? model.prompt_suffix : model.prompt_prefix).push_back(value);
    }
  }
  if (!after_text) in.corrupt(field + ".single", "has no text ($A)");
}

void read_post_processor(const JsonReader& in, element value, const std::string& field, int depth,
                         TokenizerModel& model) {
  const object json = in.as_object(value, field);
  const std::string_view type = in.type_of(json, field);
  if (type == "ByteLevel") return;  // changes offsets only
  if (type == "Sequence" && depth < 8) {
    const std::string list = field + ".processors";
    size_t index = 0;
    for (const element child : in.as_array(in.need(json, field, "processors"), list))
      read_post_processor(in, child, cat(list, "[", index++, "]"), depth + 1, model);
    return;
  }
  if (type != "TemplateProcessing")
    in.unsupported(field, cat("\"", type, "\""), "ByteLevel and TemplateProcessing");
  if (!model.prompt_prefix.empty() || !model.prompt_suffix.empty())
    in.unsupported(field, "a second TemplateProcessing", "one");
  read_template(in, json, field, model);
}

}  // namespace

void read_tokenizer_json(std::string_view text, std::string_view source, TokenizerModel& model,
                         size_t slack) {
  const JsonReader in(source);
  if (text.empty()) parse_json(text, source);  // throws; simdjson would copy from a null pointer
  simdjson::dom::parser parser;
  element document;
  const bool copy = slack < simdjson::SIMDJSON_PADDING;
  if (const auto error = parser.parse(text.data(), text.size(), copy).get(document)) {
    parse_json(text, source);  // slower, but its error names the byte
    in.corrupt("the text", cat("is not JSON (", simdjson::error_message(error), ")"));
  }
  const object root = in.as_object(document, "the top level");
  in.refuse_same_keys(root, "the top level");
  refuse_normalizer(in, root);
  PreTokenizerReader(in, model.pre_tokenizer).read(root);
  check_decoder(in, root);
  read_model(in, root, text.size(), model);
  read_added_tokens(in, root, model);
  if (const auto processor = in.member(root, "post_processor"))
    read_post_processor(in, *processor, "post_processor", 0, model);
}

}  // namespace hadal
