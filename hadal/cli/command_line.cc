#include "hadal/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <new>

#include "hadal/base/text.h"
#include "hadal/cli/input.h"
#include "hadal/cli/output.h"
#include "hadal/cli/version.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// CLI11's help without the "Excludes" and "REQUIRED" noise: type and default value.
class HelpText : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    std::string out;
    if (option->get_items_expected_max() > 0) out = " " + option->get_type_name();
    if (!option->get_default_str().empty()) out += "=" + option->get_default_str();
    if (option->get_expected_max() > 1) out += " ...";
    return out;
  }
};

// Rules across flags, and what one flag implies. Thrown as bad usage (2) or, for the content of a text, as
// failure (1).
void finish(RunOptions& o) {
  if (o.greedy) o.sampling.temperature = 0;
  if (!o.chat_template.empty() || !o.system.empty()) o.chat = true;
  if (o.chat && !o.ids_file.empty())
    throw CLI::ValidationError("--ids", "cannot be a chat: --chat, --template and --system need text");
  if (o.prompt) require_utf8(*o.prompt, "--prompt");
  require_utf8(o.system, "--system");
  for (const std::string& stop : o.stop) require_utf8(stop, "--stop");
}

void finish(TrainOptions& o) {
  finish_train(o);
}

void finish(AgentOptions& o) {
  require_utf8(o.task, "--prompt");
  finish(o.run);
}

void finish(FineTuningOptions& o) {
  finish_fine_tuning(o);
}

void finish(GrpoOptions& o) {
  finish_grpo(o);
}

void finish(RewardModelOptions& o) {
  require_utf8(o.prompt, "--prompt");
  require_utf8(o.answer, "--answer");
}

void finish(JudgeOptions& o) {
  if (o.data.empty() == o.question.empty()) throw CLI::RequiredError("--data or --question");
  if (!o.question.empty() && o.answers.empty()) throw CLI::RequiredError("--answer");
  if (o.question.empty() && !o.answers.empty()) throw CLI::ValidationError("--answer", "needs a --question");
  for (const std::string& text : o.answers) require_utf8(text, "--answer");
  require_utf8(o.question, "--question");
  require_utf8(o.reference, "--reference");
}

void finish(PlotCommandOptions& o) {
  require_utf8(o.title, "--title");
}

void finish(PlanOptions& o) {
  if (o.preset.empty() == o.config.empty())
    throw CLI::ValidationError("--preset", "say which model: one of --preset and --config");
  if (o.gpus == 0) throw CLI::ValidationError("--gpus", "say how many GPUs there are");
}

template <class Options>
void finish(Options&) {}

// All commands with their options, and what the chosen one will do.
struct Commands {
  CLI::App app{"hadal: DeepSeek-V2/V3 models, from checkpoint to tokens"};
  std::function<int()> chosen;

  // `handle` runs after parsing; the options live as long as it.
  template <class Options>
  void add(CLI::App& parent, const char* name, const char* help, void (*declare)(CLI::App&, Options&),
           std::function<int(const Options&)> handle) {
    add_to<Options>(*parent.add_subcommand(name, help), declare, handle);
  }

  // A command that may have others below it: chosen if none of them is.
  template <class Options>
  void add_to(CLI::App& command, void (*declare)(CLI::App&, Options&),
              std::function<int(const Options&)> handle) {
    auto options = std::make_shared<Options>();
    declare(command, *options);
    command.callback([this, &command, options, handle] {
      if (!command.get_subcommands().empty()) return;
      finish(*options);
      chosen = [options, handle] { return handle(*options); };
    });
  }
};

// The handler of this program, or the way to the program that has one.
template <class Options>
std::function<int(const Options&)> or_elsewhere(const std::function<int(const Options&)>& handler,
                                                const Handlers& handlers, const std::string& name,
                                                char** argv) {
  if (handler) return handler;
  return [&handlers, name, argv](const Options&) -> int {
    if (handlers.elsewhere) return handlers.elsewhere(name, argv);
    throw Error(ErrorCode::kUnsupported,
                cat("[cli.", name, "] this build of hadal-compute lacks \"", name, "\"."));
  };
}

void add_serving(Commands& all, const Handlers& handlers, char** argv) {
  CLI::App& app = all.app;
  all.add<RunOptions>(app, "run", "continue a text, or chat", add_run, handlers.run ? handlers.run : run_run);
  all.add<ServeOptions>(app, "serve", "answer over HTTP as the OpenAI API does, with a page to chat",
                        add_serve, run_serve);
  all.add<BatchCommandOptions>(app, "batch", "answer a file of requests, going on where it was stopped",
                               add_batch, run_batch);
  all.add(app, "logits", "write a model's logits for given token ids", add_logits,
          or_elsewhere(handlers.logits, handlers, "logits", argv));
}

void add_learning(Commands& all, const Handlers& handlers, char** argv) {
  CLI::App& app = all.app;
  all.add(app, "train", "train a model on a text", add_train,
          or_elsewhere(handlers.train, handlers, "train", argv));
  all.add(app, "sft", "fine-tune a model on chats", add_sft,
          or_elsewhere(handlers.fine_tuning, handlers, "sft", argv));
  all.add(app, "grpo", "improve a model on tasks by rewards for its own answers", add_grpo,
          or_elsewhere(handlers.grpo, handlers, "grpo", argv));
  CLI::App& reward = *app.add_subcommand("reward-model", "learn from preferences what an answer is worth");
  all.add(reward, "train", "turn a model into a reward model", add_reward_train,
          or_elsewhere(handlers.fine_tuning, handlers, "reward-model", argv));
  all.add<RewardModelOptions>(reward, "eval", "how far it agrees with held-out preferences", add_reward_eval,
                              run_reward_eval);
  all.add<RewardModelOptions>(reward, "score", "what it thinks of one answer", add_reward_score,
                              run_reward_score);
  all.add<JudgeOptions>(app, "judge", "let a model write what it thinks of answers, and vote", add_judge,
                        run_judge);
  all.add<EvalOptions>(app, "eval", "held-out loss, bits per byte, MTP acceptance and balance of a model",
                       add_eval, run_eval);
  all.add<QuickstartOptions>(
      app, "quickstart", "pre-train, fine-tune, reinforce and serve a small model, with a report, in minutes",
      add_quickstart, run_quickstart);
  all.add<InfoOptions>(app, "info", "size and cost of a model; or this program and machine", add_info,
                       run_info);
  all.add<InspectOptions>(app, "inspect", "what is in a checkpoint and what is wrong with it", add_inspect,
                          run_inspect);
  all.add<ConvertCommandOptions>(app, "convert", "write a checkpoint in another dtype", add_convert,
                                 run_convert);
}

void add_measuring(Commands& all) {
  CLI::App& app = all.app;
  CLI::App& bench = *app.add_subcommand("bench", "speed of inference, as share of what the machine can do");
  for (const auto& [work, help] : {std::pair{"prefill", "prompts, by tokens a second"},
                                   {"decode", "one sequence, token by token"},
                                   {"batch", "several sequences, token by token"},
                                   {"spec", "with and without drafts of the MTP module"}})
    all.add<BenchCommandOptions>(bench, work, help, add_bench, run_bench);
  all.add<LaunchOptions>(app, "launch", "a command as several ranks on this machine", add_launch, run_launch);
  all.add<BenchServeOptions>(bench, "serve", "load for a running server: latency, throughput, goodput",
                             add_bench_serve, run_bench_serve);
  CLI::App& plan = *app.add_subcommand(
      "plan", "a training cluster on paper: memory, traffic, speed, cost; or its best layouts");
  all.add_to<PlanOptions>(plan, add_plan, run_plan);
  all.add<PlanScheduleOptions>(plan, "schedule",
                               "what each rank of a pipeline does when, and how long it waits",
                               add_plan_schedule, run_plan_schedule);
  all.add<PlanExpertsOptions>(plan, "experts", "which device serves which experts, the busy ones twice",
                              add_plan_experts, run_plan_experts);
  all.add<AgentOptions>(app, "agent", "a task for a model with tools: plan, call, read, answer", add_agent,
                        run_agent_command);
  CLI::App& sandbox = *app.add_subcommand("sandbox", "run a program that nobody trusts");
  all.add<SandboxOptions>(sandbox, "run", "a command without network, files and neighbours, within limits",
                          add_sandbox_run, run_sandbox_run);
  all.add<SandboxOptions>(sandbox, "check", "which walls this system gives", add_sandbox_check,
                          run_sandbox_check);
  all.add<PlotCommandOptions>(app, "plot", "curves of training runs or evaluations as one HTML page",
                              add_plot, run_plot);
}

void add_text_and_data(Commands& all) {
  CLI::App& app = all.app;
  CLI::App& tokenizer = *app.add_subcommand("tokenizer", "encode, decode, train and look at tokenizers");
  using T = TokenizerOptions;
  all.add<T>(tokenizer, "encode", "text to token ids", add_tokenizer_encode, run_tokenizer_encode);
  all.add<T>(tokenizer, "decode", "token ids to text", add_tokenizer_decode, run_tokenizer_decode);
  all.add<T>(tokenizer, "info", "vocabulary, special tokens, split patterns", add_tokenizer_info,
             run_tokenizer_info);
  all.add<T>(tokenizer, "chat", "render chat messages as the model sees them", add_tokenizer_chat,
             run_tokenizer_chat);
  all.add<TokenizerTrainOptions>(tokenizer, "train", "learn a tokenizer from text", add_tokenizer_train,
                                 run_tokenizer_train);

  CLI::App& data = *app.add_subcommand("data", "token shards for training: build, convert, look, verify");
  using D = DataOptions;
  all.add<D>(data, "build", "text or JSONL to token shards", add_data_build, run_data_build);
  all.add<D>(data, "convert", "token files of llm.c, nanoGPT or Megatron to shards", add_data_convert,
             run_data_convert);
  all.add<D>(data, "stories", "text that hadal makes itself, to learn from", add_data_stories,
             run_data_stories);
  all.add<D>(data, "info", "documents, tokens and tokenizer of a data set", add_data_info, run_data_info);
  all.add<D>(data, "verify", "read all of a data set and check it", add_data_verify, run_data_verify);
  CLI::App& tasks =
      *app.add_subcommand("tasks", "questions whose answers a rule can judge: make, check, compare");
  using K = TasksOptions;
  all.add<K>(tasks, "make", "tasks or demonstrations of one kind", add_tasks_make, run_tasks_make);
  all.add<K>(tasks, "preferences", "pairs of answers with reasons, for reward models", add_tasks_preferences,
             run_tasks_preferences);
  all.add<K>(tasks, "mix", "several JSONL files as one, in random order", add_tasks_mix, run_tasks_mix);
  all.add<K>(tasks, "check", "whether a training file and a held-out file share a prompt", add_tasks_check,
             run_tasks_check);
  all.add<K>(tasks, "compare", "two results of hadal eval on the same tasks", add_tasks_compare,
             run_tasks_compare);
}

void add_commands(Commands& all, const Handlers& handlers, char** argv) {
  CLI::App& app = all.app;
  app.set_version_flag("--version", version_text(), "print the version and exit");
  app.require_subcommand(0, 1);  // at most one: a later argument that spells a command is an argument
  app.name("hadal");
  const auto help = std::make_shared<HelpText>();
  help->column_width(34);
  app.formatter(help);
  app.set_help_flag("-h,--help", "print this and exit");
  add_serving(all, handlers, argv);
  add_learning(all, handlers, argv);
  add_measuring(all);
  add_text_and_data(all);
  all.add<CompletionOptions>(app, "completion", "print a completion script for a shell", add_completion,
                             [&app](const CompletionOptions& o) { return run_completion(o, app); });
}

// The command that the arguments reached, and its name with those above it: "hadal tokenizer encode".
const CLI::App& innermost(const CLI::App& app, std::string& path) {
  const CLI::App* at = &app;
  path = "hadal";
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    path += " " + at->get_name();
  }
  return *at;
}

int usage_error(const std::string& what, const std::string& path) {
  const bool answered = what.find("did you mean") != std::string::npos;
  std::cerr << "hadal: " << one_line(what) << (answered ? "" : "; see " + path + " --help") << "\n";
  return 2;
}

// The first argument that nothing took, with the nearest name there is.
std::string unexpected_argument(const CLI::App& app, const CLI::App& command) {
  const std::vector<std::string> left = app.remaining(true);
  for (const std::string& argument : left) {
    if (argument.size() < 2 || argument[0] != '-') continue;
    const std::string name = argument.substr(0, argument.find('='));
    std::vector<std::string> known;
    for (const CLI::Option* option : command.get_options())
      for (const std::string& spelled : option->get_lnames()) known.push_back("--" + spelled);
    return cat("unknown option ", name, did_you_mean(name, known));
  }
  if (left.empty()) return "";
  std::vector<std::string> known;
  for (const CLI::App* one : command.get_subcommands({})) known.push_back(one->get_name());
  return known.empty() ? cat("unexpected argument \"", left[0], "\"")
                       : cat("unknown command \"", left[0], "\"", did_you_mean(left[0], known));
}

// -1: parsed, go on; else the exit code.
int parse(Commands& all, int argc, char** argv) {
  std::string path;
  try {
    all.app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(all.app.help());
    return 0;
  } catch (const CLI::CallForVersion&) {
    print(version_text() + "\n");
    return 0;
  } catch (const CLI::ParseError& e) {
    const CLI::App& command = innermost(all.app, path);
    const std::string left = unexpected_argument(all.app, command);
    return usage_error(left.empty() ? e.what() : left, path);
  }
  if (all.chosen) return -1;
  std::cerr << all.app.help();
  return 2;
}

int report(const std::string& what, const char* code, int argc, char** argv) {
  std::cerr << "hadal: " << one_line(what) << "\n";
  if (const char* trace = std::getenv("HADAL_TRACE"); trace && std::string(trace) == "1") {
    std::cerr << "  code: " << code << "\n  command:";
    for (int i = 0; i < argc; ++i) std::cerr << " " << one_line(argv[i]);
    std::cerr << "\n";
  }
  return 1;
}

}  // namespace

int hadal_main(int argc, char** argv, const Handlers& handlers) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed stdout is noticed by print()
  try {
    Commands all;
    add_commands(all, handlers, argv);
    int code = parse(all, argc, argv);
    if (code < 0) code = all.chosen();
    flush_output();
    return code;
  } catch (const ReaderGone&) {
    return 0;
  } catch (const Error& e) {
    report(e.what(), name(e.code()), argc, argv);
    return exit_code(e.code());
  } catch (const std::bad_alloc&) {
    return report("[cli] out of memory.", "exhausted", argc, argv);
  } catch (const std::exception& e) {  // LibTorch's carry a stack after the first line
    const std::string what = e.what();
    return report(what.substr(0, what.find('\n')), "internal", argc, argv);
  }
}

}  // namespace hadal
