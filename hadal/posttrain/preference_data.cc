#include "hadal/posttrain/preference_data.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/sha256.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/posttrain/json_lines.h"

namespace hadal {
namespace {

std::vector<ChatMessage> messages_of(const JsonLine& line, const char* key, const char* role) {
  if (line.is_text(key)) return {{.role = role, .content = line.text(key)}};
  return line.messages(key);
}

std::vector<int32_t> read_answer(const JsonLine& line, const char* key, const Tokenizer& tokenizer,
                                 const std::optional<ChatTemplate>& format) {
  std::vector<ChatMessage> messages;
  if (line.has("prompt")) messages = messages_of(line, "prompt", "user");
  for (ChatMessage& message : messages_of(line, key, "assistant")) messages.push_back(std::move(message));
  if (messages.empty() || messages.back().role != "assistant")
    line.fail(cat("\"", key, "\" does not end with the assistant"), "End it with the answer to be judged.");
  try {
    return encode_exchange(tokenizer, format, messages);
  } catch (const Error& e) {
    line.fail(cat("\"", key, "\" cannot be rendered: ", e.what()), "Correct the messages.");
  }
}

double read_margin(const JsonLine& line) {
  if (!line.has("margin")) return 0;
  const Json& margin = line.object()["margin"];
  if (!margin.is_number() || !std::isfinite(margin.get<double>()))
    line.fail("\"margin\" is no number", "Give a number or leave it out.");
  return margin.get<double>();
}

Preference read_pair(const JsonLine& line, const Tokenizer& tokenizer,
                     const std::optional<ChatTemplate>& format) {
  if (!line.has("chosen") || !line.has("rejected"))
    line.fail("has no chosen and rejected answer, from which a reward model learns",
              "Give both, or use hadal sft for chats.");
  Preference pair{.chosen = read_answer(line, "chosen", tokenizer, format),
                  .rejected = read_answer(line, "rejected", tokenizer, format),
                  .margin = read_margin(line)};
  if (pair.chosen == pair.rejected)
    line.fail("the chosen and the rejected answer are the same", "Leave the line out.");
  if (line.has("domain")) pair.domain = line.text("domain");
  return pair;
}

void hash(const Preference& pair, Sha256& hash) {
  for (const std::vector<int32_t>* ids : {&pair.chosen, &pair.rejected}) {
    hash.update(cat(ids->size(), " "));
    hash.update({reinterpret_cast<const char*>(ids->data()), ids->size() * sizeof(int32_t)});
  }
  hash.update(cat(pair.margin, "\n"));
}

}  // namespace

std::vector<int32_t> encode_exchange(const Tokenizer& tokenizer, const std::optional<ChatTemplate>& format,
                                     std::span<const ChatMessage> messages) {
  const ChatOptions options{.add_generation_prompt = false, .keep_reasoning = true};
  if (format) return format->encode_pieces(tokenizer, messages, options).ids;
  std::vector<int32_t> ids;
  if (tokenizer.adds_bos() && tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
  for (const ChatMessage& message : messages)
    for (const std::optional<std::string>* text : {&message.reasoning, &message.content})
      if (*text)
        for (const int32_t id : tokenizer.encode(**text, /*parse_special=*/false)) ids.push_back(id);
  if (const auto eos = tokenizer.eos_id()) ids.push_back(*eos);
  if (ids.empty()) throw Error(ErrorCode::kInvalidArgument, "[posttrain.data] there is no text. Give some.");
  return ids;
}

PreferenceData read_preferences(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                const std::optional<ChatTemplate>& format, int64_t max_tokens) {
  PreferenceData data;
  Sha256 digest;
  each_json_line(file, [&](const JsonLine& line) {
    Preference pair = read_pair(line, tokenizer, format);
    const int64_t longest = std::max(std::ssize(pair.chosen), std::ssize(pair.rejected));
    if (longest > max_tokens) {
      ++data.dropped;
      return;
    }
    data.longest = std::max(data.longest, longest);
    hash(pair, digest);
    data.pairs.push_back(std::move(pair));
  });
  data.fingerprint = hex(digest.finish());
  return data;
}

}  // namespace hadal
