#include "hadal/server/openai_request.h"

#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/server/api_error.h"
#include "hadal/server/json_fields.h"

namespace hadal {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();

std::string at(const std::string& path, size_t i) {
  return cat(path, "[", i, "]");
}

std::vector<int32_t> token_ids(const Json& list, const std::string& path) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const std::optional<int64_t> id = whole_number(list[i]);
    if (!id || *id < 0 || *id > kMaxInt32)
      bad_field(at(path, i), "need a token id: an integer of at least 0.");
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

void read_stops(JsonFields& fields, const RequestCaps& caps, GenerationCall& call) {
  const Json* stop = fields.find("stop");
  if (!stop) return;
  const auto take = [&](const Json& value, const std::string& path) {
    if (!value.is_string()) bad_field(path, cat("got ", kind_of(value), ", need a string."));
    const auto text = value.get<std::string>();
    if (text.empty() || text.size() > caps.stop_bytes)
      bad_field(path, cat("got ", text.size(), " bytes, need 1 to ", caps.stop_bytes, "."));
    call.stops.push_back(text);
  };
  if (!stop->is_array()) return take(*stop, "stop");
  if (static_cast<int64_t>(stop->size()) > caps.stops)
    bad_field("stop", cat("got ", stop->size(), " strings, need at most ", caps.stops, "."));
  for (size_t i = 0; i < stop->size(); ++i) take((*stop)[i], at("stop", i));
}

void read_logit_bias(JsonFields& fields, const RequestCaps& caps, GenerationCall& call) {
  const Json* bias = fields.find("logit_bias");
  if (!bias) return;
  if (!bias->is_object()) bad_field("logit_bias", cat("got ", kind_of(*bias), ", need an object."));
  if (static_cast<int64_t>(bias->size()) > caps.logit_bias)
    bad_field("logit_bias", cat("got ", bias->size(), " tokens, need at most ", caps.logit_bias, "."));
  for (const auto& [key, value] : bias->items()) {
    const std::string path = "logit_bias." + key.substr(0, 32);
    int32_t id = -1;
    const auto error = std::from_chars(key.data(), key.data() + key.size(), id).ec;
    if (error != std::errc() || id < 0 ||
        key != std::to_string(id))  // one spelling, or one id could come twice
      bad_field(path, "need a token id as the key.");
    if (!value.is_number() || !(value.get<double>() >= -100 && value.get<double>() <= 100))
      bad_field(path, "need a number from -100 to 100.");
    call.sampling.logit_bias.emplace_back(id, value.get<float>());
  }
}

void read_stream(JsonFields& fields, GenerationCall& call) {
  call.stream = fields.boolean("stream").value_or(false);
  if (const Json* options = fields.find("stream_options")) {
    if (!call.stream) bad_field("stream_options", "is for requests with \"stream\": true.");
    JsonFields inner(*options, "stream_options");
    call.include_usage = inner.boolean("include_usage").value_or(false);
    inner.ignore({"include_obfuscation", "continuous_usage_stats"});
    inner.done();
  }
  if (const Json* ours = fields.find("hadal")) {
    JsonFields inner(*ours, "hadal");
    call.trace = inner.boolean("trace").value_or(false);
    inner.done();
  }
}

void read_sampling(JsonFields& fields, SamplingParams& sampling) {
  sampling.temperature = fields.number("temperature", 0, 2).value_or(1.0);
  sampling.top_p = fields.number("top_p", 0, 1).value_or(1.0);
  sampling.top_k = std::max<int64_t>(0, fields.integer("top_k", -1, kMaxInt32).value_or(0));
  sampling.min_p = fields.number("min_p", 0, 1).value_or(0.0);
  sampling.repetition_penalty = fields.number("repetition_penalty", 1e-6, 1e6).value_or(1.0);
  sampling.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0.0);
  sampling.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0.0);
}

// What both kinds of completion have; logprobs differ and are read by each.
void read_generation(JsonFields& fields, const RequestCaps& caps, GenerationCall& call) {
  call.model = fields.text("model", 1024).value_or("");
  read_sampling(fields, call.sampling);
  if (const auto seed =
          fields.integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()))
    call.seed = static_cast<uint64_t>(*seed);
  call.max_tokens = fields.integer("max_tokens", 1, kMaxInt32);
  call.n = fields.integer("n", 1, caps.choices).value_or(1);
  call.ignore_end = fields.boolean("ignore_eos").value_or(false);
  read_stops(fields, caps, call);
  read_logit_bias(fields, caps, call);
  read_stream(fields, call);
  fields.ignore({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
                 "prompt_cache_retention"});
}

std::string content_text(const Json& value, const std::string& path) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) bad_field(path, cat("got ", kind_of(value), ", need a string or text parts."));
  std::string text;
  for (size_t i = 0; i < value.size(); ++i) {
    JsonFields part(value[i], at(path, i));
    if (part.need_text("type", 64) != "text")
      bad_field(part.path_of("type"), "need \"text\"; this server's models read text only.");
    text += part.need_text("text");
    part.done();
  }
  return text;
}

ToolCall read_call(const Json& value, const std::string& path) {
  JsonFields fields(value, path);
  fields.choice("type", {"function"});
  fields.ignore({"id", "index"});
  JsonFields function(fields.need("function"), path + ".function");
  ToolCall call{.name = function.need_text("name", 256)};
  const Json& arguments = function.need("arguments");
  call.arguments = arguments.is_string() ? arguments.get<std::string>() : dump_json(arguments);
  function.done();
  fields.done();
  return call;
}

ChatMessage read_message(const Json& value, const std::string& path) {
  JsonFields fields(value, path);
  ChatMessage message;
  fields.need("role");
  message.role = *fields.choice("role", {"system", "developer", "user", "assistant", "tool"});
  if (message.role == "developer") message.role = "system";
  if (const Json* content = fields.find("content"))
    message.content = content_text(*content, fields.path_of("content"));
  if (const Json* calls = fields.find("tool_calls")) {
    if (message.role != "assistant")
      bad_field(fields.path_of("tool_calls"), "only an assistant's message has them.");
    if (!calls->is_array()) bad_field(fields.path_of("tool_calls"), "need an array.");
    for (size_t i = 0; i < calls->size(); ++i)
      message.tool_calls.push_back(read_call((*calls)[i], at(fields.path_of("tool_calls"), i)));
  }
  message.reasoning = fields.text("reasoning_content");
  if (!message.content && message.tool_calls.empty()) bad_field(fields.path_of("content"), "is missing.");
  fields.ignore({"name", "tool_call_id", "refusal", "audio", "annotations", "function_call", "hadal"});
  fields.done();
  return message;
}

void read_messages(JsonFields& fields, const RequestCaps& caps, ChatCall& call) {
  const Json& list = fields.need("messages");
  if (!list.is_array()) bad_field("messages", cat("got ", kind_of(list), ", need an array."));
  if (list.empty() || static_cast<int64_t>(list.size()) > caps.messages)
    bad_field("messages", cat("got ", list.size(), " messages, need 1 to ", caps.messages, "."));
  for (size_t i = 0; i < list.size(); ++i) call.messages.push_back(read_message(list[i], at("messages", i)));
}

ToolSpec read_tool(const Json& value, const std::string& path, const RequestCaps& caps) {
  JsonFields fields(value, path);
  fields.need("type");
  fields.choice("type", {"function"});
  JsonFields function(fields.need("function"), path + ".function");
  ToolSpec tool{.name = function.need_text("name", 64)};
  if (tool.name.empty() || tool.name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                                       "0123456789_-.") != std::string::npos)
    bad_field(function.path_of("name"), "need letters, digits, underscores, dashes and dots, at least one.");
  tool.description = function.text("description", 1 << 16).value_or("");
  if (const Json* parameters = function.find("parameters")) {
    if (!parameters->is_object()) bad_field(function.path_of("parameters"), "need an object: a JSON schema.");
    tool.parameters = dump_json(*parameters);
    if (tool.parameters.size() > caps.schema_bytes)
      bad_field(function.path_of("parameters"), cat("need at most ", caps.schema_bytes, " bytes."));
  }
  tool.strict = function.boolean("strict").value_or(false);
  function.done();
  fields.done();
  return tool;
}

bool has_tool(const std::vector<ToolSpec>& tools, const std::string& name) {
  for (const ToolSpec& tool : tools)
    if (tool.name == name) return true;
  return false;
}

void read_tool_choice(JsonFields& fields, ChatCall& call) {
  const Json* choice = fields.find("tool_choice");
  if (!choice) {
    call.tool_choice = call.tools.empty() ? ToolChoice::kNone : ToolChoice::kAuto;
  } else if (choice->is_string()) {
    const std::string text = *fields.choice("tool_choice", {"none", "auto", "required"});
    call.tool_choice = text == "none"   ? ToolChoice::kNone
                       : text == "auto" ? ToolChoice::kAuto
                                        : ToolChoice::kRequired;
  } else {
    JsonFields inner(*choice, "tool_choice");
    inner.need("type");
    inner.choice("type", {"function"});
    JsonFields function(inner.need("function"), "tool_choice.function");
    call.tool_choice = ToolChoice::kNamed;
    call.tool_name = function.need_text("name", 64);
    function.done();
    inner.done();
    if (!has_tool(call.tools, call.tool_name))
      bad_field("tool_choice.function.name", cat("got \"", call.tool_name, "\", which is not in tools."));
  }
  if (call.tool_choice == ToolChoice::kRequired && call.tools.empty())
    bad_field("tool_choice", "\"required\" needs tools.");
  if (call.tools.empty()) call.tool_choice = ToolChoice::kNone;
}

void read_tools(JsonFields& fields, const RequestCaps& caps, ChatCall& call) {
  if (const Json* list = fields.find("tools")) {
    if (!list->is_array()) bad_field("tools", cat("got ", kind_of(*list), ", need an array."));
    if (static_cast<int64_t>(list->size()) > caps.tools)
      bad_field("tools", cat("got ", list->size(), " tools, need at most ", caps.tools, "."));
    for (size_t i = 0; i < list->size(); ++i) {
      ToolSpec tool = read_tool((*list)[i], at("tools", i), caps);
      if (has_tool(call.tools, tool.name))
        bad_field(at("tools", i) + ".function.name", cat("\"", tool.name, "\" is there twice."));
      call.tools.push_back(std::move(tool));
    }
  }
  read_tool_choice(fields, call);
  fields.ignore({"parallel_tool_calls"});
}

void read_format(JsonFields& fields, const RequestCaps& caps, ChatCall& call) {
  const Json* format = fields.find("response_format");
  if (!format) return;
  JsonFields inner(*format, "response_format");
  inner.need("type");
  const std::string type = *inner.choice("type", {"text", "json_object", "json_schema"});
  if (type == "json_object") call.format = ResponseFormat::kJsonObject;
  if (type == "json_schema") {
    call.format = ResponseFormat::kJsonSchema;
    JsonFields schema(inner.need("json_schema"), "response_format.json_schema");
    call.schema_name = schema.need_text("name", 64);
    call.schema = dump_json(schema.need("schema"));
    if (call.schema.size() > caps.schema_bytes)
      bad_field("response_format.json_schema.schema", cat("need at most ", caps.schema_bytes, " bytes."));
    schema.ignore({"strict", "description"});
    schema.done();
  }
  inner.done();
}

}  // namespace

ChatCall parse_chat_call(const Json& body, const RequestCaps& caps) {
  JsonFields fields(body, "");
  ChatCall call;
  read_messages(fields, caps, call);
  read_generation(fields, caps, call);
  if (const auto tokens = fields.integer("max_completion_tokens", 1, kMaxInt32)) {
    if (call.max_tokens && *call.max_tokens != *tokens)
      bad_field("max_completion_tokens", "differs from max_tokens. Give one of them.");
    call.max_tokens = tokens;
  }
  const bool logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, caps.top_logprobs);
  if (top && !logprobs) bad_field("top_logprobs", "needs \"logprobs\": true.");
  if (logprobs) call.top_logprobs = top.value_or(0);
  read_tools(fields, caps, call);
  read_format(fields, caps, call);
  if (const Json* kwargs = fields.find("chat_template_kwargs")) {
    JsonFields inner(*kwargs, "chat_template_kwargs");
    call.thinking = inner.boolean("thinking");
    if (const auto enabled = inner.boolean("enable_thinking")) call.thinking = enabled;
    inner.done();
  }
  fields.ignore({"reasoning_effort", "verbosity", "modalities"});
  fields.done();
  return call;
}

CompletionCall parse_completion_call(const Json& body, const RequestCaps& caps) {
  JsonFields fields(body, "");
  CompletionCall call;
  const Json& prompt = fields.need("prompt");
  const auto add = [&](const Json& value, const std::string& path) {
    if (value.is_string())
      call.prompts.emplace_back(value.get<std::string>());
    else if (value.is_array() && !value.empty())
      call.prompts.emplace_back(token_ids(value, path));
    else
      bad_field(path, "need a string or token ids, at least one.");
  };
  if (prompt.is_array() && !prompt.empty() && (prompt[0].is_string() || prompt[0].is_array())) {
    for (size_t i = 0; i < prompt.size() && i <= static_cast<size_t>(caps.choices); ++i)
      add(prompt[i], at("prompt", i));
  } else {
    add(prompt, "prompt");
  }
  read_generation(fields, caps, call);
  if (static_cast<int64_t>(call.prompts.size()) * call.n > caps.choices)
    bad_field("prompt", cat("prompts times n: need at most ", caps.choices, " answers a request."));
  call.top_logprobs = fields.integer("logprobs", 0, caps.top_logprobs).value_or(-1);
  if (fields.boolean("echo").value_or(false)) bad_field("echo", "is not supported: the prompt is known.");
  if (const auto best_of = fields.integer("best_of", 1, caps.choices); best_of && *best_of != call.n)
    bad_field("best_of", "need the value of n; choosing among more is not done.");
  if (const auto suffix = fields.text("suffix"); suffix && !suffix->empty())
    bad_field("suffix", "is not supported. Put the model's fill-in-the-middle tokens in the prompt.");
  fields.done();
  return call;
}

TokenizeCall parse_tokenize_call(const Json& body) {
  JsonFields fields(body, "");
  TokenizeCall call{.model = fields.text("model", 1024).value_or(""), .prompt = fields.need_text("prompt")};
  call.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  fields.done();
  return call;
}

DetokenizeCall parse_detokenize_call(const Json& body) {
  JsonFields fields(body, "");
  DetokenizeCall call{.model = fields.text("model", 1024).value_or(""), .tokens = {}};
  const Json& tokens = fields.need("tokens");
  if (!tokens.is_array()) bad_field("tokens", cat("got ", kind_of(tokens), ", need an array of token ids."));
  call.tokens = token_ids(tokens, "tokens");
  fields.done();
  return call;
}

}  // namespace hadal
