#include "hadal/cli/options.h"

#include <filesystem>

#include "hadal/cli/flags.h"
#include "hadal/error.h"
#include "hadal/parallel/schedule.h"
#include "hadal/tokenizer.h"

namespace hadal {
namespace {

void model(CLI::App& app, std::string& value) {
  file_flag(app, "MODEL", value, "model folder (config.json, *.safetensors, tokenizer.json)", "DIR")
      ->required();
}

void threads(CLI::App& app, int64_t& value) {
  count_or_zero_flag(app, "--threads", value, "CPU threads; 0: all cores");
}

void dtype(CLI::App& app, std::string& value) {
  choice_flag(app, "--dtype", value, "of the weights in memory; auto: as stored, FP8 as bf16",
              {"auto", "f32", "bf16"});
}

void seed(CLI::App& app, uint64_t& value, const char* help) {
  count_or_zero_flag(app, "--seed", value, help);
}

// Ranges are the sampler's own (hadal::check), asked with one field changed at a time.
template <class T>
CLI::Option* sampling(CLI::App& app, const std::string& name, SamplingParams& params,
                      T SamplingParams::*field, const std::string& help) {
  const auto refuse = [field](const std::string& text) -> std::string {
    SamplingParams alone;
    if (!parse_number(text, alone.*field))
      return cat("got \"", text, "\", need ", std::is_integral_v<T> ? "an integer" : "a number");
    try {
      check(alone);
    } catch (const Error& e) {
      const std::string what = e.what();
      return what.substr(what.find("got "), what.size() - what.find("got ") - 1);  // without the full stop
    }
    return "";
  };
  return app.add_option(name, params.*field, help)->type_name("N")->capture_default_str()->check(refuse, "");
}

void sampling_flags(CLI::App& app, RunOptions& o) {
  auto* temperature = sampling(app, "--temperature", o.sampling, &SamplingParams::temperature, "0: greedy");
  app.add_flag("--greedy", o.greedy, "always the likeliest token; the same as --temperature 0")
      ->excludes(temperature);
  sampling(app, "--top-k", o.sampling, &SamplingParams::top_k, "choose among the k likeliest; 0: off");
  sampling(app, "--top-p", o.sampling, &SamplingParams::top_p,
           "choose among the fewest of this total; 1: off");
  sampling(app, "--min-p", o.sampling, &SamplingParams::min_p,
           "drop what is below this times the likeliest; 0: off");
  sampling(app, "--repetition-penalty", o.sampling, &SamplingParams::repetition_penalty,
           "of tokens seen, prompt included; 1: off");
  sampling(app, "--presence-penalty", o.sampling, &SamplingParams::presence_penalty,
           "of tokens generated; 0: off");
  sampling(app, "--frequency-penalty", o.sampling, &SamplingParams::frequency_penalty,
           "of each time a token was generated; 0: off");
  seed(app, o.sampling.seed, "the same seed gives the same text");
}

template <class Options>
void engine_flags(CLI::App& app, Options& o) {
  choice_flag(app, "--cache-dtype", o.cache_dtype, "of the latent cache; auto: bf16, or f32 for an F32 model",
              {"auto", "f32", "bf16", "int8", "fp8"});
  choice_flag(app, "--speculation", o.speculation, "draft with the MTP module; auto: while it pays",
              {"auto", "on", "off"});
  threads(app, o.threads);
}

void served_model_flags(CLI::App& app, ServedModelOptions& o) {
  app.add_option("--name", o.name, "of the model, in requests; default: the folder's")->type_name("TEXT");
  choice_flag(app, "--template", o.chat_template, "chat format instead of the tokenizer's own",
              ChatTemplate::names());
  count_or_zero_flag(app, "--cache-tokens", o.cache_tokens,
                     "of the latent cache; 0: a quarter of the free memory");
  count_flag(app, "--max-sequences", o.max_sequences, "answered at the same time");
  count_flag(app, "--max-batch-tokens", o.max_batch_tokens, "of one step, prompts and answers together");
  engine_flags(app, o);
}

std::string non_empty(const std::string& text) {
  return text.empty() ? "got \"\", need some text" : "";
}

void tokenizer_and_json(CLI::App& app, TokenizerOptions& o) {
  file_flag(app, "TOKENIZER", o.tokenizer, "tokenizer.json or the folder that holds it")->required();
  json_flag(app, o.json);
}

void tools_flag(CLI::App& app, std::vector<std::string>& tools, const std::string& before) {
  app.add_option("--tools", tools, before + "calculator, python, shell, search, read, note; apart by commas")
      ->type_name("NAMES")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
}

}  // namespace

Speculation speculation_of(const std::string& word) {
  return word == "off" ? Speculation::kOff : word == "on" ? Speculation::kOn : Speculation::kAuto;
}

void add_run(CLI::App& app, RunOptions& o) {
  model(app, o.model);
  auto* prompt = app.add_option("-p,--prompt", o.prompt, "text to continue; none: a chat on the terminal");
  prompt->type_name("TEXT");
  auto* prompt_file =
      file_flag(app, "--prompt-file", o.prompt_file, "file with the text to continue; -: stdin");
  auto* ids = file_flag(app, "--ids", o.ids_file, "file with token ids to continue; -: stdin");
  prompt->excludes(prompt_file)->excludes(ids);
  prompt_file->excludes(ids);
  count_flag(app, "--max-tokens", o.max_tokens, "new tokens at most");
  sampling_flags(app, o);
  app.add_option("--stop", o.stop, "end before this text; may be given several times")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->check(non_empty, "");
  app.add_flag("--chat", o.chat, "the prompt is a user's turn, rendered by the chat template");
  choice_flag(app, "--template", o.chat_template, "chat format instead of the tokenizer's own",
              ChatTemplate::names());
  app.add_option("--system", o.system, "system prompt of the chat")->type_name("TEXT");
  engine_flags(app, o);
  count_or_zero_flag(app, "--context", o.context, "tokens of prompt and answer together; 0: the model's");
  choice_flag(app, "--overflow", o.overflow,
              "at the end of the context; refuse: the answer ends; shift: the oldest tokens behind --keep go",
              {"refuse", "shift"});
  count_or_zero_flag(app, "--keep", o.keep, "shift: tokens at the beginning that stay");
  file_flag(app, "--cache-file", o.cache_file,
            "read the cached prefixes from here, if it exists; write them at the end");
  json_flag(app, o.json);
}

void add_agent(CLI::App& app, AgentOptions& o) {
  model(app, o.model);
  app.add_option("-p,--prompt", o.task, "the task")->type_name("TEXT")->required();
  tools_flag(app, o.tools, "");
  file_flag(app, "--documents", o.documents, "folder that search and read see", "DIR");
  file_flag(app, "--transcript", o.transcript, "file for what happened, a JSON object a line");
  count_flag(app, "--turns", o.turns, "of the model at most");
  count_flag(app, "--calls", o.calls, "of tools at most");
  count_flag(app, "--max-tokens", o.max_tokens, "of a turn at most");
  not_negative_flag(app, "--seconds", o.seconds, "for all; 0: no limit");
  positive_flag(app, "--tool-seconds", o.tool_seconds, "for a call of python or shell");
  sampling_flags(app, o.run);
  choice_flag(app, "--template", o.run.chat_template, "chat format instead of the tokenizer's own",
              ChatTemplate::names());
  engine_flags(app, o.run);
  json_flag(app, o.json);
}

void add_serve(CLI::App& app, ServeOptions& o) {
  model(app, o.model);
  app.add_option("--host", o.host, "IP address to listen on; another than this machine's own needs a key")
      ->type_name("ADDRESS")
      ->capture_default_str();
  number_flag(
      app, "--port", o.port, "to listen on; 0: any free one", [](int64_t x) { return x >= 0 && x < 65536; },
      "an integer from 0 to 65535");
  file_flag(app, "--api-key-file", o.api_key_file,
            "file with the key that clients must send; or set HADAL_API_KEY");
  app.add_flag("--insecure-no-auth", o.insecure, "listen on other addresses without a key");
  app.add_option("--allowed-host", o.allowed_hosts,
                 "name in the Host header besides localhost; several times")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--cors-origin", o.cors_origin, "pages of this origin may ask; default: none")
      ->type_name("URL");
  count_flag(app, "--queue", o.queue_requests, "requests that wait; more are refused with 429");
  count_flag(app, "--queue-tokens", o.queue_tokens, "tokens of their prompts");
  not_negative_flag(app, "--queue-seconds", o.queue_seconds,
                    "they are expected to wait for their first token; 0: any");
  not_negative_flag(app, "--deadline", o.deadline_seconds, "seconds for an answer; 0: none");
  served_model_flags(app, o);
}

std::string ServedModelOptions::served_name() const {
  if (!name.empty()) return name;
  const std::filesystem::path folder = std::filesystem::absolute(model).lexically_normal();
  return folder.has_filename() ? folder.filename().string() : folder.parent_path().filename().string();
}

EngineConfig ServedModelOptions::engine_config() const {
  return {.threads = static_cast<int>(threads),
          .cache_tokens = cache_tokens,
          .cache_dtype = cache_dtype,
          .max_sequences = max_sequences,
          .max_batch_tokens = max_batch_tokens,
          .speculation = speculation_of(speculation)};
}

void add_batch(CLI::App& app, BatchCommandOptions& o) {
  model(app, o.model);
  file_flag(app, "REQUESTS", o.requests, "JSONL in OpenAI's batch shape: custom_id, method, url, body")
      ->required();
  file_flag(app, "RESULTS", o.results, "JSONL to append to; what it answers already is not done again")
      ->required();
  count_flag(app, "--in-flight", o.in_flight, "requests read ahead and given to the engine");
  served_model_flags(app, o);
  json_flag(app, o.json);
}

void add_logits(CLI::App& app, LogitsOptions& o) {
  model(app, o.model);
  file_flag(app, "--ids", o.ids_file, "token ids, a line per sequence or JSON; -: stdin")->required();
  file_flag(app, "--out", o.out, "safetensors file to write")->required();
  app.add_flag("--hidden", o.hidden, "also the hidden state after each layer");
  app.add_flag("--routing", o.routing, "also router logits, chosen experts and weights");
  app.add_flag("--cache", o.cache, "also the latents and rotated keys that are cached");
  count_or_zero_flag(app, "--decode", o.decode, "also this many greedy tokens and their logits");
  dtype(app, o.dtype);
  threads(app, o.threads);
}

void add_eval(CLI::App& app, EvalOptions& o) {
  model(app, o.model);
  auto* data =
      file_flag(app, "--data", o.data, "UTF-8 text, or token shards: their held-out part, if they have one");
  file_flag(app, "--task", o.task, "tasks to answer instead (docs/tasks.md)")->excludes(data);
  count_flag(app, "--samples", o.samples, "task: answers to each");
  app.add_option("--k", o.ks, "task: for pass@k and maj@k, such as 1,4,8; default 1 and --samples")
      ->type_name("N")
      ->delimiter(',')
      ->check(CLI::PositiveNumber, "");
  app.add_option("--by", o.by,
                 "task: also for each value of these columns of the tasks, such as length,depth")
      ->type_name("NAMES")
      ->delimiter(',');
  number_flag(
      app, "--temperature", o.temperature, "task: default 0 with one sample, else 0.6",
      [](double x) { return x >= 0 && x <= 100; }, "a number of at least 0")
      ->default_str("");
  number_flag(
      app, "--top-p", o.top_p, "task: choose among the fewest tokens of this total",
      [](double x) { return x > 0 && x <= 1; }, "a number above 0, at most 1");
  count_flag(app, "--max-tokens", o.max_tokens, "task: of an answer");
  seed(app, o.seed, "task: of the samples");
  choice_flag(app, "--profile", o.profile, "task: how answers are read (docs/rewards.md)",
              {"evaluation", "reward"});
  choice_flag(app, "--template", o.chat_template,
              "task: chat format instead of the tokenizer's own; none: prompts are continued as text",
              template_names_or_none());
  tools_flag(app, o.tools, "task: that the model may call, ");
  file_flag(app, "--documents", o.documents, "task: folder that search and read see", "DIR");
  count_flag(app, "--turns", o.turns, "task: of an answer with tools");
  app.add_flag("--untold-tools", o.untold_tools, "task: the prompt does not tell the tools");
  file_flag(app, "--out", o.out, "task: results to write, JSONL");
  count_or_zero_flag(app, "--length", o.length, "tokens per row; 0: 512, or the model's context");
  count_or_zero_flag(app, "--rows", o.rows, "at most this many rows, at even distances; 0: all");
  app.add_flag("--by-document", o.by_document,
               "shards: a row is the beginning of a document, not a part of all in a row");
  count_or_zero_flag(app, "--positions", o.positions,
                     "also the loss in this many ranges of positions of a row; 0: not");
  choice_flag(app, "--cache-dtype", o.cache_dtype, "of the latent cache; auto: bf16, or f32 for an F32 model",
              {"auto", "f32", "bf16", "int8", "fp8"});
  threads(app, o.threads);
  json_flag(app, o.json);
}

std::vector<std::string> template_names_or_none() {
  std::vector<std::string> names = ChatTemplate::names();
  names.push_back("none");
  return names;
}

void add_quickstart(CLI::App& app, QuickstartOptions& o) {
  file_flag(app, "--data", o.data, "UTF-8 text to learn from; default: text made by hadal");
  not_negative_flag(app, "--minutes", o.minutes, "of all stages together; 0: as the recipe says");
  file_flag(app, "--out", o.out, "folder for all of it; the same command goes on in it", "DIR");
  file_flag(app, "--recipe", o.recipe, "other stages than the built-in ones, which are runs/quickstart.toml");
  app.add_flag("--print-recipe", o.print_recipe, "print the recipe and exit");
  app.add_flag("--serve,!--no-serve", o.serve, "serve the model at the end");
  count_flag(app, "--port", o.port, "to serve at");
  seed(app, o.seed, "of everything random");
  threads(app, o.threads);
}

void add_info(CLI::App& app, InfoOptions& o) {
  auto* source =
      file_flag(app, "MODEL", o.model, "model folder or config.json; none: this program and machine");
  choice_flag(app, "--preset", o.preset, "built-in configuration instead", preset_names())->excludes(source);
  count_flag(app, "--context", o.context, "tokens of context for the FLOPs; default 4096")->default_str("");
  json_flag(app, o.json);
}

void add_inspect(CLI::App& app, InspectOptions& o) {
  file_flag(app, "PATH", o.path, "model folder, .safetensors file or its index")->required();
  json_flag(app, o.json);
}

void add_convert(CLI::App& app, ConvertCommandOptions& o) {
  file_flag(app, "SOURCE", o.source, "model folder, or a .gguf file")->required();
  file_flag(app, "DESTINATION", o.destination, "folder to write, or a .gguf file")->required();
  choice_flag(app, "--dtype", o.dtype,
              "of the matrices; fp8: official 128x128 blocks; int8, int4: hadal's groups of 128 and 64; "
              "q8_0: .gguf only",
              {"f32", "f16", "bf16", "fp8", "int8", "int4", "q8_0"});
  app.add_flag("--power-of-two-scales", o.convert.power_of_two_scales, "fp8 only: scales as in V3.1 (ue8m0)");
  count_flag(app, "--max-shard-bytes", o.convert.max_shard_bytes, "start a new file beyond this");
  app.add_flag("--overwrite", o.convert.overwrite, "replace an existing destination");
  threads(app, o.convert.num_threads);
}

void add_plot(CLI::App& app, PlotCommandOptions& o) {
  app.add_option(
         "RUN", o.runs,
         "folder of a training run, or .json that hadal eval --json wrote; several are drawn over each other")
      ->type_name("FILE")
      ->required();
  file_flag(app, "--out", o.out, "HTML file to write")->required();
  choice_flag(app, "--x", o.x, "what the horizontal axis counts", {"step", "tokens", "hours"});
  app.add_flag("--log-loss", o.log_loss, "logarithmic axis for losses");
  count_or_zero_flag(app, "--smooth", o.smooth, "points to average over; 1: none, 0: a hundredth of the run");
  app.add_option("--title", o.title, "of the page; default: the names of the runs")->type_name("TEXT");
  app.add_option("--only", o.only,
                 "charts with this in their title; may be given several times. Default: all")
      ->type_name("TEXT")
      ->allow_extra_args(false);
}

void add_completion(CLI::App& app, CompletionOptions& o) {
  choice_flag(app, "SHELL", o.shell, "the shell to print a completion script for", {"bash", "zsh", "fish"})
      ->required();
}

void add_tokenizer_encode(CLI::App& app, TokenizerOptions& o) {
  tokenizer_and_json(app, o);
  app.add_option("TEXT", o.text, "text to encode; none: from --file")->type_name("TEXT");
  file_flag(app, "--file", o.file, "file with the text; -: stdin");
  app.add_flag("--plain", o.plain, "special tokens spelled in the text are plain text");
  app.add_flag("--bos", o.bos, "add BOS and EOS as the tokenizer asks for");
}

void add_tokenizer_decode(CLI::App& app, TokenizerOptions& o) {
  tokenizer_and_json(app, o);
  const auto refuse = [](const std::string& text) -> std::string {
    int32_t id = 0;
    return parse_number(text, id) && id >= 0 ? "" : cat("got \"", text, "\", need a token id");
  };
  app.add_option("ID", o.ids, "token ids; none: from --file")->type_name("N")->check(refuse, "");
  file_flag(app, "--file", o.file, "file with token ids; -: stdin");
  app.add_flag("--skip-special", o.skip_special, "leave out special tokens");
}

void add_tokenizer_info(CLI::App& app, TokenizerOptions& o) {
  tokenizer_and_json(app, o);
}

void add_tokenizer_chat(CLI::App& app, TokenizerOptions& o) {
  tokenizer_and_json(app, o);
  file_flag(app, "--messages", o.messages, "JSON file: [{\"role\": ..., \"content\": ...}]; -: stdin")
      ->required();
  choice_flag(app, "--template", o.chat_template, "chat format instead of the tokenizer's own",
              ChatTemplate::names());
  app.add_flag("--no-generation-prompt", o.no_generation_prompt, "do not open the assistant's turn");
  app.add_flag("--thinking", o.thinking, "v3.1: open the turn with <think>");
  app.add_flag("--ids", o.as_ids, "print token ids instead of the text");
}

void add_tokenizer_train(CLI::App& app, TokenizerTrainOptions& o) {
  app.add_option("--data", o.data, "UTF-8 text; may be given several times")
      ->type_name("FILE")
      ->allow_extra_args(false)
      ->required();
  file_flag(app, "--out", o.out, "folder for tokenizer.json and tokenizer_config.json", "DIR")->required();
  choice_flag(app, "--kind", o.kind, "byte-level BPE, bytes, or characters", {"bpe", "byte", "char"});
  count_flag(app, "--vocab-size", o.vocab_size, "bpe: tokens in all");
  count_flag(app, "--min-pair-count", o.min_pair_count, "bpe: rarer pairs are not merged");
  app.add_option("--special", o.special, "one more special token; may be given several times")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  json_flag(app, o.json);
}

void add_plan_schedule(CLI::App& app, PlanScheduleOptions& o) {
  std::vector<std::string> names;
  for (const ScheduleKind kind : all_schedules()) names.emplace_back(name(kind));
  choice_flag(app, "--kind", o.kind, "of schedule", names);
  count_flag(app, "--ranks", o.ranks, "of the pipeline");
  count_flag(app, "--microbatches", o.microbatches, "of a step; dualpipe: of both directions together");
  count_flag(app, "--chunks", o.chunks, "interleaved: stages a rank");
  app.add_option("--times", o.times,
                 "of one micro-batch on one rank's layers: forward, gradient of the input, of the weights, "
                 "overlapped pair")
      ->type_name("F,I,W,FB")
      ->delimiter(',')
      ->expected(4)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  count_or_zero_flag(app, "--measure", o.measure_ms,
                     "run it too, ranks as threads and passes that sleep: milliseconds of a unit of time; "
                     "0: do not");
  file_flag(app, "--svg", o.svg, "write the picture of it here");
  json_flag(app, o.json);
}

void add_plan_experts(CLI::App& app, PlanExpertsOptions& o) {
  file_flag(app, "loads", o.loads, "JSON: of each MoE layer the list of its experts' loads", "FILE")
      ->required();
  count_or_zero_flag(app, "--copies", o.copies, "of all experts together; 0: one each");
  count_flag(app, "--groups", o.groups,
             "of experts, as the gate's; kept on one node if the nodes divide them");
  count_flag(app, "--nodes", o.nodes, "of equally many devices");
  count_flag(app, "--devices", o.devices, "of all nodes together");
  json_flag(app, o.json);
}

void add_bench(CLI::App& app, BenchCommandOptions& o) {
  o.bench.work = app.get_name();
  model(app, o.model);
  o.prompts = o.bench.work == "prefill" ? std::vector<int64_t>{512} : std::vector<int64_t>{128};
  app.add_option("--prompt", o.prompts, "prefill: tokens of the prompt; else: tokens in the cache before")
      ->type_name("N")
      ->delimiter(',')
      ->capture_default_str();
  if (o.bench.work != "prefill")
    count_flag(app, "--tokens", o.bench.new_tokens, "new tokens of each sequence");
  if (o.bench.work == "batch")
    app.add_option("--sequences", o.sequences, "at the same time")
        ->type_name("N")
        ->delimiter(',')
        ->capture_default_str();
  count_flag(app, "--repeats", o.bench.repeats, "measurements; the best and the median are shown");
  choice_flag(app, "--cache-dtype", o.bench.cache_dtype, "of the latent cache",
              {"auto", "f32", "bf16", "int8", "fp8"});
  threads(app, o.threads);
  json_flag(app, o.json);
}

void add_bench_serve(CLI::App& app, BenchServeOptions& o) {
  app.add_option("URL", o.url, "of a running server, such as http://127.0.0.1:8000")
      ->type_name("URL")
      ->required();
  app.add_option("--model", o.model, "name to ask for; default: none is said")->type_name("TEXT");
  file_flag(app, "--api-key-file", o.api_key_file, "file with the server's key");
  count_flag(app, "--streams", o.streams, "at the same time, each a request after another");
  not_negative_flag(app, "--rate", o.rate, "random arrivals a second instead; 0: none");
  app.add_option("--load", o.loads, "then random arrivals, as multiples of what the streams reached")
      ->type_name("N")
      ->delimiter(',');
  positive_flag(app, "--seconds", o.seconds, "of each load");
  count_flag(app, "--prompts", o.prompts, "different ones, used in turn");
  count_flag(app, "--prompt", o.prompt_tokens, "tokens of a prompt, about");
  count_flag(app, "--answer", o.answer_tokens, "tokens of an answer");
  app.add_flag("--no-stream", o.whole, "ask for whole answers");
  app.add_flag("--verify", o.verify, "each answer must be what the server answers to the prompt alone");
  positive_flag(app, "--slo-first-ms", o.slo_first_ms, "goodput: to the first token at most");
  positive_flag(app, "--slo-token-ms", o.slo_token_ms, "goodput: between tokens at most");
  count_or_zero_flag(app, "--slow-clients", o.slow_clients,
                     "beside the others: half send, half read, five bytes a second");
  count_or_zero_flag(app, "--disconnects", o.disconnects, "instead: so many requests whose clients leave");
  positive_flag(app, "--leave-seconds", o.leave_seconds, "after which they have left, at most");
  positive_flag(app, "--timeout", o.timeout_seconds, "seconds for an answer; then it is lost");
  count_or_zero_flag(app, "--pid", o.pid, "of the server's process: watch its memory and open files");
  seed(app, o.seed, "of prompts, answers and arrivals");
}

}  // namespace hadal
