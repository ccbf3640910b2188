// hadal agent: a task for a model with tools.
#include "hadal/agent/agent.h"

#include <cstdio>
#include <fstream>

#include "hadal/agent/builtin_tools.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/cli/tool_episode.h"
#include "hadal/engine.h"
#include "hadal/error.h"
#include "hadal/server/tool_prompt.h"

namespace hadal {
namespace {

ChatTemplate format_of(const AgentOptions& o, const std::optional<Tokenizer>& tokenizer) {
  if (!tokenizer)
    throw Error(ErrorCode::kNotFound, cat("[cli.agent] ", o.model, " has no tokenizer.json. Put it there."));
  return o.run.chat_template.empty() ? ChatTemplate::detect(*tokenizer)
                                     : ChatTemplate::named(o.run.chat_template);
}

// The engine as the loop sees it: messages to a turn.
class EngineModel {
 public:
  EngineModel(const AgentOptions& options, Engine& engine, const ToolBox& tools)
      : options_(options),
        engine_(engine),
        format_(format_of(options, engine.tokenizer())),
        specs_(specs_of(tools)) {}

  ModelTurn operator()(const std::vector<ChatMessage>& messages) {
    const std::string prompt = format_.render(with_tools(messages, specs_, format_.name()));
    const bool thinking = starts_in_thought(prompt);
    const Answer answer = engine_.generate({.prompt = engine_.tokenizer()->encode(prompt),
                                            .max_tokens = options_.max_tokens,
                                            .sampling = options_.run.sampling});
    // Not the answer's text: that lacks special tokens, and a call's markers may be such.
    std::vector<int32_t> ids;
    for (const NewToken& token : answer.tokens) ids.push_back(token.id);
    ModelTurn turn = read_turn(engine_.tokenizer()->decode(ids), thinking, format_.name());
    turn.num_tokens = static_cast<int64_t>(answer.tokens.size());
    turn.cut = answer.reason == FinishReason::kMaxTokens || answer.reason == FinishReason::kContextFull;
    return turn;
  }

 private:
  const AgentOptions& options_;
  Engine& engine_;
  ChatTemplate format_;
  std::vector<ToolSpec> specs_;
};

// For people, on stderr: each call and its result in a line.
void show(const AgentEvent& event) {
  if (event.kind != "result") return;
  const auto text = [&](const char* key) { return one_line(event.fields[key].get<std::string>()); };
  const std::string line = cat(text("name"), " ", text("arguments"), " -> ", text("result"));
  std::fprintf(stderr, "[agent] %s\n", line.substr(0, 400).c_str());
}

}  // namespace

int run_agent_command(const AgentOptions& o) {
  const ToolBox tools = builtin_tools(o.tools, {.documents = o.documents, .seconds = o.tool_seconds});
  std::ofstream transcript;
  if (!o.transcript.empty()) {
    transcript.open(o.transcript);
    if (!transcript)
      throw Error(ErrorCode::kUnavailable, cat("[cli.agent] cannot write ", o.transcript, "."));
  }
  Engine engine = Engine::open(o.model, {.threads = static_cast<int>(o.run.threads),
                                         .cache_dtype = o.run.cache_dtype,
                                         .max_sequences = 1,
                                         .speculation = speculation_of(o.run.speculation)});
  EngineModel model(o, engine, tools);
  const AgentBudget budget{.turns = o.turns, .calls = o.calls, .seconds = o.seconds};
  const AgentResult result = run_agent(std::ref(model), tools, o.task, budget, [&](const AgentEvent& event) {
    if (transcript.is_open()) transcript << transcript_line(event) << std::endl;
    if (o.json)
      print(transcript_line(event) + "\n");
    else
      show(event);
  });
  if (!o.json) print(result.answer + "\n");
  flush_output();
  std::fprintf(stderr, "[agent] ended: %s; %lld turns, %lld calls, %lld failed, %lld tokens\n",
               name(result.end), static_cast<long long>(result.turns), static_cast<long long>(result.calls),
               static_cast<long long>(result.failed_calls), static_cast<long long>(result.tokens));
  return result.end == AgentEnd::kAnswered ? 0 : 1;
}

}  // namespace hadal
