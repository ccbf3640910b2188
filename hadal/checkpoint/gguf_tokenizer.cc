#include <array>
#include <iostream>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/gguf_model.h"
#include "hadal/error.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;  // token types

// How text is split before BPE: the name in GGUF, and the patterns of tokenizer.json. None: the one that
// ByteLevel brings itself.
struct PreTokenizerRow {
  const char* name;
  std::vector<std::string> patterns;
};
const std::array<PreTokenizerRow, 2>& pre_tokenizers() {
  static const std::array<PreTokenizerRow, 2> kRows = {
      PreTokenizerRow{"gpt-2", {}},
      PreTokenizerRow{
          "deepseek-v3",
          {R"(\p{N}{1,3})", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
           "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]"
           "+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"}}};
  return kRows;
}

Json byte_level(bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json pre_tokenizer_json(const PreTokenizerRow& row) {
  if (row.patterns.empty()) return byte_level(true);
  Json list = Json::array();
  for (const std::string& pattern : row.patterns)
    list.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  list.push_back(byte_level(false));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(list)}};
}

// Equal but for what does not change the pieces.
bool splits_alike(Json a, Json b) {
  for (Json* json : {&a, &b}) {
    json->erase("trim_offsets");
    if (json->contains("pretokenizers"))
      for (Json& step : (*json)["pretokenizers"]) step.erase("trim_offsets");
  }
  return Json::parse(a.dump()) == Json::parse(b.dump());
}

Json read_json(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) ? parse_json(read_file(path), path.string()) : Json::object();
}

[[noreturn]] void unsupported(const fs::path& path, const std::string& what) {
  throw Error(ErrorCode::kUnsupported, cat("[gguf.tokenizer] ", path.string(), ": ", what));
}

// Text of a token that tokenizer_config.json names: a string, or an object with its content.
std::string special_text(const Json& config, const char* key) {
  const auto it = config.find(key);
  if (it == config.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  return it->is_object() ? it->value("content", std::string()) : "";
}

struct Tokens {
  std::vector<std::string> texts, merges;
  std::vector<int64_t> types;

  void put(int64_t id, const std::string& text, int64_t type, const fs::path& path) {
    if (id < 0 || id >= static_cast<int64_t>(texts.size()))
      unsupported(path, cat("token id ", id, " lies outside the ", texts.size(),
                            " rows of the embedding. Use the tokenizer that came with the model."));
    texts[static_cast<size_t>(id)] = text;
    types[static_cast<size_t>(id)] = type;
  }
};

Tokens read_tokens(const Json& root, const fs::path& path, int64_t vocab_size) {
  Tokens out;
  out.types.assign(static_cast<size_t>(vocab_size), kUnused);
  for (int64_t i = 0; i < vocab_size; ++i) out.texts.push_back(cat("[PAD", i, "]"));
  for (const auto& [text, id] : root.at("model").at("vocab").items())
    out.put(id.get<int64_t>(), text, kNormal, path);
  for (const Json& token : root.value("added_tokens", Json::array()))
    out.put(token.at("id").get<int64_t>(), token.at("content").get<std::string>(),
            token.value("special", false) ? kControl : kUserDefined, path);
  for (const Json& merge : root.at("model").at("merges"))
    out.merges.push_back(merge.is_array()
                             ? merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>()
                             : merge.get<std::string>());
  return out;
}

const char* pre_tokenizer_name(const Json& root, const fs::path& path) {
  // Without merges every byte is a token, however text is split.
  if (root.contains("model") && root["model"].value("merges", Json::array()).empty()) return "deepseek-v3";
  for (const PreTokenizerRow& row : pre_tokenizers())
    if (root.contains("pre_tokenizer") && splits_alike(root["pre_tokenizer"], pre_tokenizer_json(row)))
      return row.name;
  unsupported(
      path,
      "it splits text in a way that hadal knows no GGUF name for (known: gpt-2, deepseek-v3). Convert "
      "without tokenizer.json.");
}

const std::vector<std::string>* texts_of(const GgufFile& file, const char* key) {
  const GgufValue* value = file.value(key);
  return value ? std::get_if<std::vector<std::string>>(value) : nullptr;
}

Json rebuilt_tokenizer(const GgufFile& file, const std::vector<std::string>& tokens) {
  const auto* merges = texts_of(file, "tokenizer.ggml.merges");
  const GgufValue* types_value = file.value("tokenizer.ggml.token_type");
  const auto* types = types_value ? std::get_if<std::vector<int64_t>>(types_value) : nullptr;
  if (file.text("tokenizer.ggml.model", "") != "gpt2" || !merges || (types && types->size() != tokens.size()))
    unsupported(file.path(), "the tokenizer is no byte-level BPE with merges. Add tokenizer.json by hand.");
  const std::string pre = file.text("tokenizer.ggml.pre", "");
  Json root = {{"version", "1.0"},
               {"truncation", nullptr},
               {"padding", nullptr},
               {"added_tokens", Json::array()},
               {"normalizer", nullptr}};
  for (const PreTokenizerRow& row : pre_tokenizers())
    if (pre == row.name) root["pre_tokenizer"] = pre_tokenizer_json(row);
  if (!root.contains("pre_tokenizer"))
    unsupported(file.path(), cat("tokenizer.ggml.pre is \"", pre,
                                 "\", hadal knows gpt-2 and deepseek-v3. Add tokenizer.json by hand."));
  root["post_processor"] = nullptr;
  root["decoder"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  Json vocab = Json::object();
  auto& entries = vocab.get_ref<Json::object_t&>();
  for (size_t id = 0; id < tokens.size(); ++id) {
    const int64_t type = types ? (*types)[id] : kNormal;
    if (type == kUnused) continue;
    if (type == kControl || type == kUserDefined)
      root["added_tokens"].push_back({{"id", id},
                                      {"content", tokens[id]},
                                      {"single_word", false},
                                      {"lstrip", false},
                                      {"rstrip", false},
                                      {"normalized", false},
                                      {"special", type == kControl}});
    else
      entries.Container::emplace_back(tokens[id], Json(id));
  }
  Json pairs = Json::array();
  for (const std::string& merge : *merges) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos)
      unsupported(file.path(), cat("the merge \"", merge, "\" is no pair. Add tokenizer.json by hand."));
    pairs.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  root["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", false},
                   {"vocab", std::move(vocab)},
                   {"merges", std::move(pairs)}};
  return root;
}

}  // namespace

void add_gguf_tokenizer(GgufWriter& w, const fs::path& folder, const ModelConfig& config) {
  const fs::path path = folder / "tokenizer.json";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    std::cerr << "note: " << path.string() << " does not exist; the file has no tokenizer\n";
    w.add_text("tokenizer.ggml.model", "no_vocab");
    return;
  }
  const std::string text = read_file(path);
  const Json root = parse_json(text, path.string()), settings = read_json(folder / "tokenizer_config.json");
  const char* pre = pre_tokenizer_name(root, path);
  Tokens tokens;
  try {
    tokens = read_tokens(root, path, config.vocab_size);
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::kCorrupt,
                cat("[gguf.tokenizer] ", path.string(), ": ", e.what(), ". Give another file."));
  }
  w.add_text("tokenizer.ggml.model", "gpt2");
  w.add_text("tokenizer.ggml.pre", pre);
  w.add_texts("tokenizer.ggml.tokens", tokens.texts);
  w.add_i32s("tokenizer.ggml.token_type", tokens.types);
  w.add_texts("tokenizer.ggml.merges", tokens.merges);
  if (config.bos_id >= 0) w.add_u32("tokenizer.ggml.bos_token_id", config.bos_id);
  if (!config.eos_ids.empty()) w.add_u32("tokenizer.ggml.eos_token_id", config.eos_ids[0]);
  const std::string pad = special_text(settings, "pad_token");
  for (size_t id = 0; !pad.empty() && id < tokens.texts.size(); ++id)
    if (tokens.texts[id] == pad) w.add_u32("tokenizer.ggml.padding_token_id", static_cast<int64_t>(id));
  for (const char* flag : {"add_bos_token", "add_eos_token"})
    if (settings.contains(flag) && settings[flag].is_boolean())
      w.add_bool(cat("tokenizer.ggml.", flag), settings[flag].get<bool>());
  const fs::path jinja = folder / "chat_template.jinja";
  if (fs::exists(jinja, ignored))
    w.add_text("tokenizer.chat_template", read_file(jinja));
  else if (settings.contains("chat_template") && settings["chat_template"].is_string())
    w.add_text("tokenizer.chat_template", settings["chat_template"].get<std::string>());
  w.add_text("tokenizer.huggingface.json", text);
}

void write_gguf_tokenizer(const GgufFile& file, const fs::path& folder) {
  const auto* tokens = texts_of(file, "tokenizer.ggml.tokens");
  const std::string whole = file.text("tokenizer.huggingface.json", "");
  if (whole.empty() && !tokens) return;
  if (!whole.empty()) parse_json(whole, file.path().string() + ": tokenizer.huggingface.json");
  write_file(folder / "tokenizer.json",
             whole.empty() ? dump_json(rebuilt_tokenizer(file, *tokens), 1) + "\n" : whole);
  Json settings = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
  const auto name_token = [&](const char* name, const char* key) {
    const int64_t id = file.integer(key, -1);
    if (tokens && id >= 0 && id < static_cast<int64_t>(tokens->size()))
      settings[name] = (*tokens)[static_cast<size_t>(id)];
  };
  name_token("bos_token", "tokenizer.ggml.bos_token_id");
  name_token("eos_token", "tokenizer.ggml.eos_token_id");
  name_token("pad_token", "tokenizer.ggml.padding_token_id");
  for (const char* flag : {"add_bos_token", "add_eos_token"})
    if (file.value(cat("tokenizer.ggml.", flag)))
      settings[flag] = file.boolean(cat("tokenizer.ggml.", flag), false);
  if (const std::string chat = file.text("tokenizer.chat_template", ""); !chat.empty())
    settings["chat_template"] = chat;
  write_file(folder / "tokenizer_config.json", dump_json(settings, 2) + "\n");
}

}  // namespace hadal
