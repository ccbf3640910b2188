// From argv to the handler of a command. Torch-free.
#pragma once
#include <functional>
#include <string>

#include "hadal/cli/options.h"

namespace hadal {

// What a program does with the commands that compute; the others are handled the same in each. A handler
// returns the exit code and throws hadal::Error. One that is empty is passed to `elsewhere` (command name,
// argv) if that is set, else answered with an error.
struct Handlers {
  std::function<int(const RunOptions&)> run;  // empty: run_run
  std::function<int(const LogitsOptions&)> logits;
  std::function<int(const TrainOptions&)> train;
  std::function<int(const FineTuningOptions&)> fine_tuning;
  std::function<int(const GrpoOptions&)> grpo;
  std::function<int(const std::string&, char**)> elsewhere;
};

// Parses, runs, reports: `hadal: <error>` on stderr. 0, 1 (failed), 2 (bad usage), 3 (bad file).
// HADAL_TRACE=1 adds the error's code and the command line.
int hadal_main(int argc, char** argv, const Handlers& handlers);

// Replaces this process by hadal-compute with the same arguments. Returns only by throwing: not_found,
// unavailable.
int exec_compute(const std::string& command, char** argv);

// Where hadal-compute is: beside this program or in ../libexec/hadal; "" if in neither.
std::string find_compute();

int run_run(const RunOptions& options);
int run_eval(const EvalOptions& options);
int run_eval_tasks(const EvalOptions& options);
int run_reward_eval(const RewardModelOptions& options);
int run_reward_score(const RewardModelOptions& options);
int run_judge(const JudgeOptions& options);
int run_serve(const ServeOptions& options);
int run_batch(const BatchCommandOptions& options);
int run_info(const InfoOptions& options);
int run_inspect(const InspectOptions& options);
int run_convert(const ConvertCommandOptions& options);
int run_tokenizer_encode(const TokenizerOptions& options);
int run_tokenizer_decode(const TokenizerOptions& options);
int run_tokenizer_info(const TokenizerOptions& options);
int run_tokenizer_chat(const TokenizerOptions& options);
int run_tokenizer_train(const TokenizerTrainOptions& options);
int run_data_build(const DataOptions& options);
int run_data_convert(const DataOptions& options);
int run_data_stories(const DataOptions& options);
int run_data_info(const DataOptions& options);
int run_data_verify(const DataOptions& options);
int run_bench(const BenchCommandOptions& options);
int run_bench_serve(const BenchServeOptions& options);
int run_plan(const PlanOptions& options);
int run_plan_schedule(const PlanScheduleOptions& options);
int run_plan_experts(const PlanExpertsOptions& options);
int run_launch(const LaunchOptions& options);
int run_agent_command(const AgentOptions& options);
int run_sandbox_run(const SandboxOptions& options);
int run_sandbox_check(const SandboxOptions& options);
int run_tasks_make(const TasksOptions& options);
int run_tasks_preferences(const TasksOptions& options);
int run_tasks_mix(const TasksOptions& options);
int run_tasks_check(const TasksOptions& options);
int run_tasks_compare(const TasksOptions& options);
int run_quickstart(const QuickstartOptions& options);
int run_plot(const PlotCommandOptions& options);
int run_completion(const CompletionOptions& options, const CLI::App& commands);

}  // namespace hadal
