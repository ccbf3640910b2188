// tokenizer_config.json: BOS, EOS, padding and the chat template.
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tokenizer/tokenizer_model.h"

namespace hadal {
namespace {

[[noreturn]] void wrong(std::string_view source, std::string_view field, const std::string& what) {
  throw Error(ErrorCode::kInvalidConfig,
              cat("[tokenizer.load] ", source, ": ", field, " ", what, ". Correct the field."));
}

// A token is given as "<s>" or as {"content": "<s>", ...}.
std::optional<int32_t> token_field(const Json& config, const char* field, std::string_view source,
                                   const Vocabulary& vocabulary) {
  const auto it = config.find(field);
  if (it == config.end() || it->is_null()) return std::nullopt;
  const Json& value = it->is_object() && it->contains("content") ? (*it)["content"] : *it;
  if (!value.is_string()) wrong(source, field, "is neither a string nor an object with a content");
  const auto& text = value.get_ref<const std::string&>();
  const auto id = vocabulary.find(text);
  if (!id) wrong(source, field, cat("is \"", text, "\", which is not a token of tokenizer.json"));
  return id;
}

std::optional<bool> flag_field(const Json& config, const char* field, std::string_view source) {
  const auto it = config.find(field);
  if (it == config.end() || it->is_null()) return std::nullopt;
  if (!it->is_boolean()) wrong(source, field, "is not true or false");
  return it->get<bool>();
}

// A text, or a list of {"name", "template"}: then the one named default.
std::string template_field(const Json& config, std::string_view source) {
  const auto it = config.find("chat_template");
  if (it == config.end() || it->is_null()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_array()) wrong(source, "chat_template", "is neither a string nor a list");
  for (const Json& entry : *it) {
    if (!entry.is_object() || !entry.contains("name") || !entry.contains("template") ||
        !entry["template"].is_string())
      wrong(source, "chat_template", "has an entry without name and template");
    if (entry["name"] == "default") return entry["template"].get<std::string>();
  }
  return "";
}

}  // namespace

void read_tokenizer_config(std::string_view text, std::string_view source, TokenizerModel& model) {
  const Json config = parse_json(text, source);
  if (!config.is_object()) wrong(source, "the top level", "is not an object");
  model.bos_id = token_field(config, "bos_token", source, model.vocabulary);
  model.eos_id = token_field(config, "eos_token", source, model.vocabulary);
  model.pad_id = token_field(config, "pad_token", source, model.vocabulary);
  model.add_bos = flag_field(config, "add_bos_token", source);
  model.add_eos = flag_field(config, "add_eos_token", source);
  model.chat_template = template_field(config, source);
  if (model.add_bos.value_or(false) && !model.bos_id)
    wrong(source, "add_bos_token", "is true without a bos_token");
  if (model.add_eos.value_or(false) && !model.eos_id)
    wrong(source, "add_eos_token", "is true without an eos_token");
}

}  // namespace hadal
