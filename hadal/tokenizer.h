// Text to token ids and back, and chat formats. PUBLIC, torch-free.
//
// A Tokenizer executes a Hugging Face `tokenizer.json` (byte-level BPE, its split patterns, its added tokens)
// and gives the ids that the `tokenizers` library gives. What it does not know how to execute is an error,
// never a guess.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

struct TokenizerModel;

// Facts for display; Tokenizer::info().
struct TokenizerInfo {
  std::string kind;                         // "byte-level BPE"
  int64_t vocab_size = 0;                   // largest id + 1
  int64_t num_base_tokens = 0;              // entries of model.vocab
  int64_t num_merges = 0;                   //
  int64_t num_added_tokens = 0;             // entries of added_tokens
  std::vector<std::string> special_tokens;  // added tokens with special = true, by id
  std::vector<std::string> split_patterns;  // of the pre-tokenizer, in order
  int64_t missing_bytes = 0;                // bytes without a token: as in HF they vanish in encode
  std::string chat_format;  // of the published ones (ChatTemplate::names); "": none recognised
};

// Cheap to copy (shared, immutable). Const methods may run in several threads at once.
class Tokenizer {
 public:
  // `path`: a tokenizer.json, or the folder that holds it; a tokenizer_config.json (and chat_template.jinja)
  // beside it is read too. Throws not_found, unavailable; corrupt (the file breaks its format: names the JSON
  // field); unsupported (a piece hadal cannot execute: names the field and what is supported).
  static Tokenizer load(const std::filesystem::path& path);

  // The same from memory; `source` names the text in errors. An empty config_json: no tokenizer_config.json.
  static Tokenizer parse(std::string_view tokenizer_json, std::string_view config_json = "",
                         std::string_view source = "tokenizer.json");

  // Ids of `text`; no BOS or EOS is added. parse_special: added tokens spelled in the text ("<think>") become
  // their ids; false: every one of them is plain text, so that foreign text cannot forge a turn. Linear time.
  // Throws invalid_argument naming the first byte that is not UTF-8 (surrogates are not UTF-8).
  std::vector<int32_t> encode(std::string_view text, bool parse_special = true) const;

  // encode() plus the BOS and EOS that the file's post_processor or tokenizer_config.json ask for: raw
  // completion prompts. A BOS that `text` already starts with is not doubled. Not for rendered chats, which
  // spell their BOS.
  std::vector<int32_t> encode_prompt(std::string_view text) const;

  // Text of `ids`; bytes that are no UTF-8 become U+FFFD, one per maximal invalid part. skip_special drops
  // added tokens marked special. Throws invalid_argument for an id that is no token.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  int64_t vocab_size() const;                                        // largest id + 1
  std::optional<int32_t> token_to_id(std::string_view token) const;  // spelled as in tokenizer.json ("Ġthe")
  std::string token(int32_t id) const;        // spelling of tokenizer.json; throws invalid_argument
  std::string token_bytes(int32_t id) const;  // what the token adds to the text; throws invalid_argument
  bool is_token(int32_t id) const;            // false for holes and outside [0, vocab_size)
  bool is_special(int32_t id) const;          // an added token with special = true
  bool is_added(int32_t id) const;            // any added token, such as "<think>"

  std::optional<int32_t> bos_id() const;  // from tokenizer_config.json
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  bool adds_bos() const;  // what encode_prompt() does
  bool adds_eos() const;
  const std::string& chat_template() const;  // Jinja text of the model; "" if it has none
  TokenizerInfo info() const;

 private:
  friend class IncrementalDecoder;
  explicit Tokenizer(std::shared_ptr<const TokenizerModel> model) : model_(std::move(model)) {}
  std::shared_ptr<const TokenizerModel> model_;
};

// Streaming decode: the concatenated results equal Tokenizer::decode of all ids, and no result ends inside a
// character. One stream each; not thread-safe.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(Tokenizer tokenizer, bool skip_special = false)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

  std::string push(int32_t id);  // the text that became certain, often one token's; throws as decode()
  std::string flush();           // what is left, as U+FFFD; ready for a new stream

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string pending_;  // the start of a character, at most 3 bytes
};

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON text, rendered as given
  std::string type = "function";
};

struct ChatMessage {
  std::string role;                      // "system", "user", "assistant" or "tool"
  std::optional<std::string> content;    // absent: null
  std::vector<ToolCall> tool_calls;      // assistant only; empty: none
  std::optional<std::string> reasoning;  // assistant only; the published templates do not send it back
};

struct ChatOptions {
  bool add_generation_prompt = true;  // end with the start of the assistant's turn
  bool thinking = false;              // V3.1 only: open with <think> instead of </think>
  bool keep_reasoning = false;        // for training: what was thought stays, ChatMessage::reasoning too
};

// A part of a rendered chat.
struct ChatPiece {
  std::string text;
  bool marker = false;   // spells one token of the format; else text in which nothing is a token's name
  bool trained = false;  // the assistant's own: content, reasoning, calls and the end of its turn
};

// Ids, and which of them the assistant said.
struct TrainedTokens {
  std::vector<int32_t> ids;
  std::vector<uint8_t> trained;
};

// Renders messages as a published model's own template does, its quirks included (see docs of render()).
class ChatTemplate {
 public:
  // "v2", "v3", "r1", "r1-0528", "v3.1": the latest text of each. Throws invalid_argument with the list.
  static ChatTemplate named(std::string_view name);
  // Recognises the published template in the tokenizer's chat_template(). A tokenizer without one that has
  // the tokens of V3's turns, as those that hadal trains, speaks V3. Throws unsupported with the list of
  // names.
  static ChatTemplate detect(const Tokenizer& tokenizer);
  // detect(), but nothing where the tokenizer has neither a template nor those tokens.
  static std::optional<ChatTemplate> find(const Tokenizer& tokenizer);
  static ChatTemplate detect(std::string_view jinja);
  static const std::vector<std::string>& names();

  const std::string& name() const { return name_; }

  // The prompt as text. bos and eos are spelled in it: encode it with parse_special and without BOS.
  // Quirks kept from v3/r1: in a second round of tool calls the Assistant token and the opening of the
  // outputs are missing; nothing is added for generation when the last message is a tool result. Throws
  // invalid_argument for a role or a null content that the format has no place for.
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;

  // render() and encode in one: the ids a server feeds.
  std::vector<int32_t> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                              const ChatOptions& options = {}) const;

  // render() in pieces.
  std::vector<ChatPiece> pieces(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;
  // Ids piece by piece, so that no message can spell a marker and the assistant's words are split from what
  // is before them as when they were generated. A marker that the tokenizer has no token for is text.
  TrainedTokens encode_pieces(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                              const ChatOptions& options = {}) const;

 private:
  // What sets the first published V3 and R1 texts apart from the later one; detect() reads it off the text.
  struct Edition {
    bool early_tools = false;  // calls only without content, ended after each but the first; outputs by lines
    bool keeps_reasoning = false;   // history is not cut at </think>
    bool last_system_only = false;  // of several system messages
  };
  explicit ChatTemplate(std::string name) : name_(std::move(name)) {}
  ChatTemplate(std::string name, Edition edition) : name_(std::move(name)), edition_(edition) {}
  std::vector<ChatPiece> pieces_v3(std::span<const ChatMessage> messages, const ChatOptions& options) const;

  std::string name_;
  Edition edition_;
};

// Messages from JSON in the OpenAI form: [{"role", "content", "tool_calls": [{"type", "function": {"name",
// "arguments"}}]}]. `arguments` may be JSON text or an object. Throws corrupt/invalid_argument naming the
// field.
std::vector<ChatMessage> parse_chat_messages(std::string_view json, std::string_view source = "messages");

}  // namespace hadal
