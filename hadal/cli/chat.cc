#include "hadal/cli/chat.h"

#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "hadal/base/text.h"
#include "hadal/cli/flags.h"
#include "hadal/cli/input.h"
#include "hadal/cli/interrupt.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr const char* kHelp =
    "/exit            end\n"
    "/clear           forget the conversation\n"
    "/system TEXT     set the system prompt (and forget the conversation)\n"
    "/set NAME VALUE  temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, "
    "frequency_penalty,\n"
    "                 seed, max_tokens\n";

class Chat {
 public:
  Chat(const RunOptions& options, Engine& engine)
      : engine_(engine),
        tokenizer_(*engine.tokenizer()),
        stops_(options.stop),
        system_(options.system),
        sampling_(options.sampling),
        max_tokens_(options.max_tokens) {
    format_ = options.chat_template.empty() ? ChatTemplate::find(tokenizer_)
                                            : ChatTemplate::named(options.chat_template);
    if (!format_)
      std::fputs(
          "The model has no chat template: each line is continued as plain text. /help lists commands.\n",
          stderr);
  }

  // False: end.
  bool turn(const std::string& line) {
    if (line == "/exit") return false;
    if (line.starts_with("/")) {
      command(line);
    } else if (!line.empty()) {
      require_utf8(line, "the line");
      answer(line);
    }
    return true;
  }

 private:
  void command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string word = line.substr(0, space),
                      rest = space == std::string::npos ? "" : line.substr(space + 1);
    if (word == "/clear") {
      messages_.clear();
    } else if (word == "/system") {
      system_ = rest;
      messages_.clear();
    } else if (word == "/set") {
      const size_t gap = rest.find(' ');
      set_by_name(rest.substr(0, gap), gap == std::string::npos ? "" : rest.substr(gap + 1), sampling_,
                  max_tokens_);
    } else if (word == "/help") {
      std::fputs(kHelp, stderr);
    } else {
      throw Error(
          ErrorCode::kInvalidArgument,
          cat("[cli.chat] unknown command ", word,
              did_you_mean(word, {"/exit", "/clear", "/system", "/set", "/help"}), ". /help lists them."));
    }
  }

  void answer(const std::string& line) {
    std::vector<ChatMessage> messages;
    if (!system_.empty()) messages.push_back({.role = "system", .content = system_});
    messages.insert(messages.end(), messages_.begin(), messages_.end());
    messages.push_back({.role = "user", .content = line});
    const Request request{
        .prompt = format_ ? format_->encode(tokenizer_, messages) : tokenizer_.encode_prompt(line),
        .max_tokens = max_tokens_,
        .sampling = sampling_,
        .stops = stops_};
    const InterruptWatch watch;
    const auto stream = [](std::string_view piece) {
      print(piece);
      flush_output();
    };
    const Answer result = engine_.generate(request, stream, &watch.flag());
    print("\n");
    flush_output();
    std::fputs(usage_line(result).c_str(), stderr);
    messages_.push_back({.role = "user", .content = line});
    messages_.push_back({.role = "assistant", .content = result.text});
  }

  Engine& engine_;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> format_;
  std::vector<std::string> stops_;
  std::string system_;
  SamplingParams sampling_;
  int64_t max_tokens_;
  std::vector<ChatMessage> messages_;  // without the system prompt
};

template <class T>
void assign(const std::string& name, const std::string& text, T& value) {
  T parsed{};
  if (!parse_number(text, parsed))
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.chat] ", name, ": got \"", text, "\", need a number. Say /set ", name, " VALUE."));
  value = parsed;
}

}  // namespace

void set_by_name(const std::string& name, const std::string& value, SamplingParams& sampling,
                 int64_t& max_tokens) {
  SamplingParams changed = sampling;
  int64_t tokens = max_tokens;
  const std::vector<std::pair<std::string, std::function<void()>>> settings = {
      {"temperature", [&] { assign(name, value, changed.temperature); }},
      {"top_k", [&] { assign(name, value, changed.top_k); }},
      {"top_p", [&] { assign(name, value, changed.top_p); }},
      {"min_p", [&] { assign(name, value, changed.min_p); }},
      {"repetition_penalty", [&] { assign(name, value, changed.repetition_penalty); }},
      {"presence_penalty", [&] { assign(name, value, changed.presence_penalty); }},
      {"frequency_penalty", [&] { assign(name, value, changed.frequency_penalty); }},
      {"seed", [&] { assign(name, value, changed.seed); }},
      {"max_tokens", [&] { assign(name, value, tokens); }},
  };
  std::vector<std::string> known;
  for (const auto& [key, set] : settings) {
    known.push_back(key);
    if (key != name) continue;
    set();
    check(changed);
    if (tokens < 1)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[cli.chat] max_tokens: got ", tokens, ", need at least 1."));
    sampling = changed;
    max_tokens = tokens;
    return;
  }
  throw Error(ErrorCode::kInvalidArgument,
              cat("[cli.chat] unknown setting \"", name, "\"", did_you_mean(name, known),
                  ". Known: ", join(known, ", "), "."));
}

int run_chat(const RunOptions& options, Engine& engine) {
  Chat chat(options, engine);
  const bool terminal = ::isatty(STDIN_FILENO);
  for (std::string line;;) {
    if (terminal) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) break;
    try {
      if (!chat.turn(line)) break;
    } catch (const Error& e) {
      std::fprintf(stderr, "hadal: %s\n", e.what());
    }
  }
  return 0;
}

}  // namespace hadal
