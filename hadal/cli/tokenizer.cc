#include "hadal/tokenizer.h"

#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/input.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"

namespace hadal {
namespace {

std::string ids_text(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text;
}

void print_json(const Json& value) {
  print(dump_json(value) + "\n");
}

void print_ids(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool json) {
  if (!json) return print(ids_text(ids) + "\n");
  Json tokens = Json::array();
  for (const int32_t id : ids) tokens.push_back(tokenizer.token(id));
  print_json({{"ids", ids}, {"tokens", tokens}});
}

}  // namespace

int run_tokenizer_encode(const TokenizerOptions& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  const std::string text = options.text ? *options.text : read_text(options.file);
  if (options.text) require_utf8(text, "TEXT");
  if (options.plain && options.bos)
    throw Error(ErrorCode::kInvalidArgument,
                "[cli.tokenizer] --plain and --bos exclude each other. Leave one out.");
  print_ids(tokenizer, options.bos ? tokenizer.encode_prompt(text) : tokenizer.encode(text, !options.plain),
            options.json);
  return 0;
}

int run_tokenizer_decode(const TokenizerOptions& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  std::vector<std::vector<int32_t>> rows;
  if (options.ids.empty())
    rows = read_token_ids(options.file);
  else
    rows.push_back(options.ids);
  for (const auto& ids : rows) {
    const std::string text = tokenizer.decode(ids, options.skip_special);
    if (options.json)
      print_json({{"text", text}});
    else
      print(text + "\n");
  }
  return 0;
}

int run_tokenizer_info(const TokenizerOptions& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  const TokenizerInfo info = tokenizer.info();
  const auto special = [&](std::optional<int32_t> id) {
    return id ? Json{{"id", *id}, {"text", tokenizer.token(*id)}} : Json();
  };
  if (options.json) {
    print_json({{"kind", info.kind},
                {"vocab_size", info.vocab_size},
                {"base_tokens", info.num_base_tokens},
                {"merges", info.num_merges},
                {"added_tokens", info.num_added_tokens},
                {"missing_bytes", info.missing_bytes},
                {"bos", special(tokenizer.bos_id())},
                {"eos", special(tokenizer.eos_id())},
                {"pad", special(tokenizer.pad_id())},
                {"adds_bos", tokenizer.adds_bos()},
                {"adds_eos", tokenizer.adds_eos()},
                {"chat_format", info.chat_format},
                {"special_tokens", info.special_tokens},
                {"split_patterns", info.split_patterns}});
    return 0;
  }
  const auto token = [&](const char* label, std::optional<int32_t> id) {
    return id ? cat(label, tokenizer.token(*id), " (", *id, ")\n") : "";
  };
  std::string out =
      cat("kind            ", info.kind, "\nvocabulary      ", with_commas(info.vocab_size),
          " ids: ", with_commas(info.num_base_tokens), " base, ", with_commas(info.num_added_tokens),
          " added\nmerges          ", with_commas(info.num_merges), "\n");
  out += token("BOS             ", tokenizer.bos_id()) + token("EOS             ", tokenizer.eos_id()) +
         token("padding         ", tokenizer.pad_id());
  out += cat("a prompt gets   ", tokenizer.adds_bos() ? "BOS" : "no BOS",
             tokenizer.adds_eos() ? ", EOS\n" : ", no EOS\n");
  out += cat("chat format     ", info.chat_format.empty() ? "none of the published ones" : info.chat_format,
             "\n");
  if (info.missing_bytes > 0)
    out += cat("missing bytes   ", info.missing_bytes, ": they vanish when encoded\n");
  for (const std::string& pattern : info.split_patterns)
    out += cat("split pattern   ", dump_json(Json(pattern)), "\n");
  out += cat("special tokens  ", info.special_tokens.size(), "\n");
  for (size_t i = 0; i < info.special_tokens.size() && i < 20; ++i)
    out += cat("  ", info.special_tokens[i], "\n");
  if (info.special_tokens.size() > 20)
    out += cat("  ... ", info.special_tokens.size() - 20, " more (--json has all)\n");
  print(out);
  return 0;
}

int run_tokenizer_chat(const TokenizerOptions& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  const auto format = options.chat_template.empty() ? ChatTemplate::detect(tokenizer)
                                                    : ChatTemplate::named(options.chat_template);
  const auto messages = parse_chat_messages(read_text(options.messages), options.messages);
  const ChatOptions chat{.add_generation_prompt = !options.no_generation_prompt,
                         .thinking = options.thinking};
  const std::string text = format.render(messages, chat);
  if (options.json)
    print_json(
        {{"template", format.name()}, {"text", text}, {"ids", format.encode(tokenizer, messages, chat)}});
  else if (options.as_ids)
    print_ids(tokenizer, format.encode(tokenizer, messages, chat), false);
  else
    print(text + "\n");
  return 0;
}

}  // namespace hadal
