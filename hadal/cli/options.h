// What each command was asked to do, and the declaration of its flags. One struct and one add_ function per
// command; both programs (hadal and hadal-compute) read the command line through them. Torch-free.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hadal/checkpoint.h"
#include "hadal/config/train_config.h"
#include "hadal/engine/measure.h"
#include "hadal/engine/sampler.h"
#include "hadal/posttrain/grpo_config.h"

namespace CLI {
class App;
}

namespace hadal {

struct RunOptions {
  std::string model;                  // folder: config.json, weights, tokenizer
  std::optional<std::string> prompt;  // text itself
  std::string prompt_file;            // "-": stdin; "": none
  std::string ids_file;               // token ids instead of text; see read_token_ids()
  int64_t max_tokens = 256;           // new tokens at most
  SamplingParams sampling;            // checked; --greedy has set temperature 0
  bool greedy = false;
  std::vector<std::string> stop;     // none empty
  std::string cache_dtype = "auto";  // of the latent cache: auto, f32, bf16, int8, fp8
  std::string speculation = "auto";  // auto, on, off
  int64_t context = 0;               // tokens; 0: the model's
  std::string overflow = "refuse";   // refuse, shift
  int64_t keep = 64;                 // shift: tokens of the head that stay
  std::string cache_file;            // the cache's prefixes, from earlier runs and for later ones; "": none
  bool chat = false;                 // the prompt is a user's turn; set by --template and --system too
  std::string chat_template;         // --template; "": the tokenizer's own
  std::string system;                // --system; "": none
  int64_t threads = 0;               // 0: all cores
  bool json = false;                 // one JSON object instead of streamed text
  bool has_prompt() const {
    return prompt || !prompt_file.empty() || !ids_file.empty();
  }  // no: chat at the terminal
};

// Of --speculation's words: auto, on, off.
Speculation speculation_of(const std::string& word);

// A model behind the API, as serve and batch open it.
struct ServedModelOptions {
  std::string model;  // folder
  std::string name;   // in requests; "": the folder's name
  std::string chat_template;
  std::string cache_dtype = "auto", speculation = "auto";
  int64_t cache_tokens = 0;  // 0: a quarter of the free memory
  int64_t max_sequences = 64, max_batch_tokens = 512;
  int64_t threads = 0;

  std::string served_name() const;
  EngineConfig engine_config() const;
};

struct ServeOptions : ServedModelOptions {
  std::string host = "127.0.0.1";
  int64_t port = 8000;
  std::string api_key_file;  // "": the environment's HADAL_API_KEY, if any
  bool insecure = false;     // serve others than this machine without a key
  std::vector<std::string> allowed_hosts;
  std::string cors_origin;
  int64_t queue_requests = 256, queue_tokens = 1 << 18;
  double queue_seconds = 30;      // 0: any
  double deadline_seconds = 600;  // 0: none
};

struct BatchCommandOptions : ServedModelOptions {
  std::string requests, results;  // files
  int64_t in_flight = 128;        // requests given to the engine
  bool json = false;
};

struct LogitsOptions {
  std::string model;
  std::string ids_file;
  std::string out;       // .safetensors to write
  bool hidden = false;   // also the residual stream after each layer
  bool routing = false;  // also router logits, experts, weights
  bool cache = false;    // also latents and rope keys
  int64_t decode = 0;    // also this many greedy tokens and their logits
  std::string dtype = "auto";
  int64_t threads = 0;
};

struct TrainOptions {
  std::string config;                                      // TOML of the run; "": none
  std::string data;                                        // text or tokens
  TrainConfig flags;                                       // defaults of the flags, for their help
  std::vector<std::pair<std::string, std::string>> given;  // key and value of each flag
  bool print_config = false, print_reference = false, dry_run = false;
  bool force_config = false, restart = false;
};
// Over `base` the file, over it the flags, over them those of whole keys. Throws invalid_config.
TrainConfig train_config_of(const TrainOptions& options, const TrainConfig& base = {});

// Of runs of training that begin with a model and learn from JSONL: sft, reward-model train.
struct FineTuningOptions {
  std::string model;
  TrainConfig defaults;  // of the command
  std::string data_key;  // what --data sets
  TrainOptions train;
};
TrainConfig fine_tuning_config_of(const FineTuningOptions& options);
void finish_fine_tuning(const FineTuningOptions& options);  // rules across flags; throws CLI::Error

struct RewardModelOptions {
  std::string model;
  std::string data;            // eval: JSONL of preferences
  std::string prompt, answer;  // score
  int64_t threads = 0;
  bool json = false;
};

struct JudgeOptions {
  std::string model;
  std::string data;                  // JSONL of judged answers
  std::string keep, tasks;           // files to write; "": none
  std::string question, reference;   // instead of data
  std::vector<std::string> answers;  // to the question
  std::string chat_template;         // "": the tokenizer's own
  int64_t votes = 8;                 // judgements of each
  double temperature = 1;
  int64_t max_tokens = 256;  // of a judgement
  uint64_t seed = 0;
  int64_t threads = 0;
  bool json = false;
};

// Is --data token files or a folder of them (else: text)?
bool is_token_data(const std::string& path);
void finish_train(TrainOptions& options);  // rules across flags; throws CLI::Error

struct GrpoOptions {
  std::string model, config, profile;
  GrpoConfig flags;                                        // defaults of the flags, for their help
  std::vector<std::pair<std::string, std::string>> given;  // key and value of each flag
  bool print_config = false, force_config = false, restart = false;
};
// Over the profile the file, over it the flags. Throws invalid_config.
GrpoConfig grpo_config_of(const GrpoOptions& options);
void finish_grpo(GrpoOptions& options);  // rules across flags; throws CLI::Error

struct EvalOptions {
  std::string model;
  std::string data;  // UTF-8 text or token files; "": tasks
  std::string task;  // file of tasks; "": data
  std::string out;   // task: results as JSONL; "": none
  int64_t samples = 1, max_tokens = 256, max_sequences = 64;
  std::vector<int64_t> ks;      // of pass@k and maj@k; empty: 1 and samples
  std::vector<std::string> by;  // task: columns; right answers for each of their values too
  double temperature = -1;      // below 0: 0 with one sample, else 0.6
  double top_p = 0.95;
  uint64_t seed = 0;
  std::string profile = "evaluation", chat_template;
  std::vector<std::string> tools;  // task: that the model may call
  std::string documents;           // folder of search and read; "": none
  bool untold_tools = false;       // they do not stand in the prompt
  int64_t turns = 8;               // of an answer with tools
  int64_t length = 0;              // tokens a row; 0: 512, or the model's context if that is less
  int64_t rows = 0;                // at most this many, at even distances; 0: all
  bool by_document = false;        // shards: a row is the beginning of a document
  int64_t positions = 0;           // ranges of positions to give the loss of; 0: none
  std::string cache_dtype = "auto";
  int64_t threads = 0;
  bool json = false;
};

struct TasksOptions {
  std::string kind;                 // of task
  std::string out;                  // JSONL file
  int64_t count = 1000, level = 0;  // level 0: the kind's own
  double held_out = 0.1;            // share of all prompts
  std::string part = "train";       // train, held-out
  bool demonstrations = false, messages = false;
  uint64_t seed = 0;
  std::vector<std::string> files;  // check: tasks trained on and held out; compare: two results
  bool json = false;
};

struct QuickstartOptions {
  std::string data;    // UTF-8 text; "": text that hadal makes itself
  double minutes = 0;  // of all stages; 0: the recipe's
  std::string out = "runs/out/quickstart";
  std::string recipe;  // TOML; "": runs/quickstart.toml as it was built in
  bool print_recipe = false, serve = true;
  int64_t port = 8000;
  uint64_t seed = 1;
  int64_t threads = 0;
};

struct InfoOptions {
  std::string model;  // folder or config.json; "" with preset "": this program and machine
  std::string preset;
  int64_t context = 0;  // tokens for the FLOPs; 0: 4096, or the model's longest context if that is less
  bool json = false;
};

struct InspectOptions {
  std::string path;
  bool json = false;
};

struct ConvertCommandOptions {
  std::string source, destination;
  std::string dtype = "bf16";  // f32, f16, bf16, fp8
  ConvertOptions convert;      // its dtype is set from the above
};

struct TokenizerOptions {
  std::string tokenizer;            // folder or tokenizer.json
  std::optional<std::string> text;  // encode: the text; none: from file
  std::vector<int32_t> ids;         // decode: the ids; none: from file
  std::string file = "-";           // "-": stdin
  bool plain = false;               // encode: special tokens in the text are plain text
  bool bos = false;                 // encode: add BOS and EOS as the tokenizer asks
  bool skip_special = false;        // decode
  std::string messages;             // chat: JSON file
  std::string chat_template;        // chat: name; "": the tokenizer's own
  bool no_generation_prompt = false, thinking = false, as_ids = false;  // chat
  bool json = false;
};

struct TokenizerTrainOptions {
  std::vector<std::string> data;  // UTF-8 files
  std::string out;                // folder
  std::string kind = "bpe";       // bpe, byte, char
  int64_t vocab_size = 4096;
  int64_t min_pair_count = 2;
  std::vector<std::string> special;  // added to the default special tokens
  bool json = false;
};

struct PlotCommandOptions {
  std::vector<std::string> runs;  // folders of training runs, or their metrics.jsonl; at least one
  std::string out;                // HTML file
  std::string x = "step";         // step, tokens, hours
  bool log_loss = false;
  int64_t smooth = 0;             // points; 0: a hundredth of the run
  std::string title;              // "": the runs' names
  std::vector<std::string> only;  // words of charts' titles; empty: all
};

struct DataOptions {
  std::string path, out;            // convert: source and folder; build: out; info, verify: path
  std::string tokenizer;            // build: of the text; convert: that made the tokens, "": unknown
  std::vector<std::string> inputs;  // build: text or JSONL files
  std::string format = "text";      // text, jsonl
  std::string field = "text";       // of jsonl
  std::string split = "file";       // of text: file, blank-line, line
  std::string eos;                  // build: a token; "": the tokenizer's
  int64_t eos_id = -1;              // convert: an id; -1: the format's, or none
  int64_t vocab_size = 0;           // convert; 0: known or found
  int64_t shard_tokens = 1 << 25;
  double held_out = 0;
  double split_merged = 0;    // build
  int64_t bytes = 4'000'000;  // stories
  uint64_t seed = 0;
  int64_t workers = 0;  // 0: all cores
  bool overwrite = false;
  bool json = false;
};

struct BenchCommandOptions {
  std::string model;
  EngineBenchOptions bench;      // work: the command; prompt_tokens and sequences: one of the lists below
  std::vector<int64_t> prompts;  // prefill: a row each; decode: tokens in the cache
  std::vector<int64_t> sequences = {1, 8, 32};
  int64_t threads = 0;
  bool json = false;
};

struct PlanOptions {
  std::string preset, config;  // the model: one of them
  int64_t gpus = 0;
  std::string layout;  // "": propose some
  int64_t batch = 15360, length = 4096, top = 10;
  std::string precision = "fp8", moments = "bf16", hardware = "h800";
  std::vector<std::pair<std::string, std::string>> facts;  // over those of the hardware
  std::string svg;                                         // file to write; "": none
  bool json = false;
};

struct PlanScheduleOptions {
  std::string kind = "dualpipe";
  int64_t ranks = 8, microbatches = 20, chunks = 2;
  std::vector<double> times = {1, 1, 1, 3};  // forward, input gradient, weight gradient, pair; of a stage
  int64_t measure_ms = 0;                    // of a unit of them in a run against the clock; 0: none
  std::string svg;                           // file to write; "": none
  bool json = false;
};

struct PlanExpertsOptions {
  std::string loads;  // JSON file: of each layer a list of numbers, one for each expert
  int64_t copies = 0, groups = 1, nodes = 1, devices = 8;
  bool json = false;
};

struct LaunchOptions {
  int64_t ranks = 2, max_restarts = 0;
  std::vector<std::string> arguments;  // of hadal, or a program and its own
  bool program = false;
};

struct AgentOptions {
  std::string model, task;
  std::vector<std::string> tools = {"calculator"};
  std::string documents;                             // folder of search and read; "": none
  std::string transcript;                            // JSONL file; "": none
  int64_t turns = 8, calls = 16, max_tokens = 1024;  // max_tokens: of one turn
  double tool_seconds = 10, seconds = 0;             // seconds: of all; 0: no limit
  RunOptions run;                                    // sampling, chat template and engine
  bool json = false;
};

struct SandboxOptions {
  std::vector<std::string> command;          // after --
  std::vector<std::string> files, readable;  // copied into /box; shown under their own path
  double wall_seconds = 10, cpu_seconds = 10;
  int64_t memory_mib = 512, processes = 32, output_kib = 1024, tmp_mib = 64;
  bool json = false;
};

struct BenchServeOptions {
  std::string url;
  std::string model, api_key_file;
  int64_t streams = 8;
  double rate = 0;            // arrivals a second; 0: none
  std::vector<double> loads;  // arrivals as multiples of what the streams reached
  double seconds = 10;
  int64_t prompts = 256;  // different ones
  int64_t prompt_tokens = 64, answer_tokens = 32;
  bool whole = false;  // no streaming
  bool verify = false;
  double slo_first_ms = 2000, slo_token_ms = 200;
  int64_t slow_clients = 0, disconnects = 0;
  double leave_seconds = 0.1;
  double timeout_seconds = 120;
  int64_t pid = 0;  // of the server; 0: not watched
  uint64_t seed = 0;
};

struct CompletionOptions {
  std::string shell;
};

void add_run(CLI::App& app, RunOptions& options);
void add_serve(CLI::App& app, ServeOptions& options);
void add_batch(CLI::App& app, BatchCommandOptions& options);
void add_logits(CLI::App& app, LogitsOptions& options);
void add_train(CLI::App& app, TrainOptions& options);
void add_sft(CLI::App& app, FineTuningOptions& options);
void add_grpo(CLI::App& app, GrpoOptions& options);
void add_reward_train(CLI::App& app, FineTuningOptions& options);
void add_reward_eval(CLI::App& app, RewardModelOptions& options);
void add_reward_score(CLI::App& app, RewardModelOptions& options);
void add_judge(CLI::App& app, JudgeOptions& options);
void add_eval(CLI::App& app, EvalOptions& options);
void add_tasks_make(CLI::App& app, TasksOptions& options);
void add_tasks_preferences(CLI::App& app, TasksOptions& options);
void add_tasks_mix(CLI::App& app, TasksOptions& options);
void add_tasks_check(CLI::App& app, TasksOptions& options);
void add_tasks_compare(CLI::App& app, TasksOptions& options);
void add_quickstart(CLI::App& app, QuickstartOptions& options);
void add_info(CLI::App& app, InfoOptions& options);
void add_inspect(CLI::App& app, InspectOptions& options);
void add_convert(CLI::App& app, ConvertCommandOptions& options);
void add_plot(CLI::App& app, PlotCommandOptions& options);
void add_data_build(CLI::App& app, DataOptions& options);
void add_data_convert(CLI::App& app, DataOptions& options);
void add_data_stories(CLI::App& app, DataOptions& options);
void add_data_info(CLI::App& app, DataOptions& options);
void add_data_verify(CLI::App& app, DataOptions& options);
void add_bench(CLI::App& app, BenchCommandOptions& options);
void add_plan(CLI::App& app, PlanOptions& options);
void add_plan_schedule(CLI::App& app, PlanScheduleOptions& options);
void add_plan_experts(CLI::App& app, PlanExpertsOptions& options);
void add_launch(CLI::App& app, LaunchOptions& options);
void add_agent(CLI::App& app, AgentOptions& options);
void add_sandbox_run(CLI::App& app, SandboxOptions& options);
void add_sandbox_check(CLI::App& app, SandboxOptions& options);
void add_bench_serve(CLI::App& app, BenchServeOptions& options);
void add_completion(CLI::App& app, CompletionOptions& options);
// Of a --template that may also be "none".
std::vector<std::string> template_names_or_none();
void add_tokenizer_encode(CLI::App& app, TokenizerOptions& options);
void add_tokenizer_decode(CLI::App& app, TokenizerOptions& options);
void add_tokenizer_info(CLI::App& app, TokenizerOptions& options);
void add_tokenizer_chat(CLI::App& app, TokenizerOptions& options);
void add_tokenizer_train(CLI::App& app, TokenizerTrainOptions& options);

}  // namespace hadal
