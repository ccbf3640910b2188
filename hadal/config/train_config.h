// What a training run is told: sections of plain values, each listed once with its help. TOML in and out,
// overrides "section.key=value", and the rules across keys. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/config/config_fields.h"

namespace hadal {

struct RunSection {
  std::string out;     // run folder
  int64_t steps = 0;   // 0: as many as fit in `minutes`
  double minutes = 0;  // 0: no limit
  double epochs = 0;   // instead of steps; 0: not
  uint64_t seed = 0;
  int64_t threads = 0;  // 0: all cores
  std::string also_export;
  void fields(auto&& f) {
    f("out", out, "run folder; the trained model ends up in it");
    f("steps", steps, "optimiser steps; 0: as many as fit in run.minutes, fixed and saved after the first 8");
    f("minutes", minutes, "wall time of training, over all restarts; 0: no limit");
    f("epochs", epochs, "instead of run.steps: passes over the data");
    f("seed", seed, "of initial weights and data order");
    f("threads", threads, "0: all cores");
    f("also_export", also_export,
      "the trained model once more, in this format, in a folder of its name in the run folder: bf16, fp8 (as "
      "the official checkpoints); empty: none");
  }
};

struct ModelSection {
  std::string preset, config, start;  // one of them; none: tiny
  int64_t context = 0;                // 0: the model's own
  double yarn_factor = 0;
  void fields(auto&& f) {
    f("preset", preset, "built-in configuration");
    f("config", config, "config.json of the model, or its folder, instead");
    f("start", start, "folder of a trained model to go on from, instead");
    f("context", context,
      "positions to extend the model to by YaRN (V3 report 4.3), to be trained on longer sequences; 0: its "
      "own");
    f("yarn_factor", yarn_factor, "of that YaRN; 0: model.context over the positions first trained on");
  }
};

struct DataSection {
  std::string text;                  // UTF-8
  std::vector<std::string> sources;  // instead of text: "PATH" or "PATH=WEIGHT"
  std::string chat;                  // instead: JSONL of chats
  std::string preferences;           // instead: JSONL of pairs of answers, for a reward model
  std::string held_out;              // of chat and preferences
  std::string chat_template;         // of chat; "": the tokenizer's own
  std::string tokenizer;             // folder or tokenizer.json; "": learned from the text
  double held_out_share = 0.1;       // of a text: its end
  double split_merged = 0;
  double fim_rate = 0;
  bool mask_documents = false;
  std::string packing = "stream";
  void fields(auto&& f) {
    f("text", text, "UTF-8 text to learn from");
    f("sources", sources, "token shards to learn from instead, as PATH or PATH=WEIGHT");
    f("chat", chat, "JSONL of chats to learn the assistant's part of instead (docs/posttraining.md)");
    f("preferences", preferences,
      "JSONL of pairs of answers, from which a reward model learns, instead (docs/reward-models.md)");
    f("held_out", held_out,
      "with data.chat or data.preferences: JSONL to measure on; empty: the last data.held_out_share of it");
    f("chat_template", chat_template,
      "with data.chat or data.preferences: v2, v3, r1, r1-0528, v3.1; empty: the tokenizer's own");
    f("tokenizer", tokenizer, "tokenizer.json or its folder; empty: the sources', or learned from the text");
    f("held_out_share", held_out_share, "share of the tokens, the end, that is only measured on");
    f("split_merged", split_merged,
      "of a text: share of the tokens of punctuation and line breaks that is split in two (V3); sources are "
      "built with it");
    f("fim_rate", fim_rate, "share of the sources' documents with their middle moved to the end");
    f("mask_documents", mask_documents, "sources: attention and targets stay within a document");
    f("packing", packing,
      "sources: stream (documents in a row, cut where sequences end, as V3) or best_fit (those that fit are "
      "whole; targets stay within a document)");
  }
};

struct BatchSection {
  int64_t sequences = 8;    // of one optimiser step
  int64_t length = 128;     // tokens a sequence
  int64_t micro = 0;        // sequences at a time; 0: all of them
  int64_t workers = 0;      // share the sequences at a time, each with one thread; 0: one per thread
  int64_t start = 0;        // sequences of the first step; 0: no ramp
  int64_t ramp_tokens = 0;  // until `sequences` are reached
  int64_t quantum = 1;      // a ramp's sizes are multiples of it
  void fields(auto&& f) {
    f("sequences", sequences, "sequences per optimiser step");
    f("length", length, "tokens per sequence");
    f("micro", micro, "sequences at a time, their gradients are added; 0: all");
    f("workers", workers,
      "share these sequences, one thread each; 0: one per thread of all ranks, 1: one with all threads");
    f("start", start, "sequences of the first step, growing to batch.sequences; 0: no ramp");
    f("ramp_tokens", ramp_tokens, "tokens over which the batch grows");
    f("quantum", quantum, "a growing batch is a multiple of this");
  }
};

struct OptimizerSection {
  double lr = 1e-3;  // peak
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;
  double ema = 0;  // decay of the average of the weights; 0: none
  bool export_ema = false;
  bool bf16_moments = false;
  void fields(auto&& f) {
    f("lr", lr, "peak learning rate");
    f("beta1", beta1, "decay of the first moment");
    f("beta2", beta2, "decay of the second moment");
    f("eps", eps, "added to the root of the second moment");
    f("weight_decay", weight_decay, "of matrices, embedding and head; norms do not decay");
    f("clip", clip, "global gradient norm at most");
    f("ema", ema, "decay of a moving average of the weights, e.g. 0.999; 0: none");
    f("bf16_moments", bf16_moments, "the moments are kept in bf16: 4 bytes less a parameter");
    f("export_ema", export_ema, "the model in the run folder is the average");
  }
};

struct ScheduleSection {
  std::string kind = "v3";
  int64_t warmup_steps = 20;
  double floor = 0.1;
  double decay_share = 0.2;
  void fields(auto&& f) {
    f("kind", kind, "of the learning rate: v3, v2, cosine, wsd, constant");
    f("warmup_steps", warmup_steps, "steps of linear warm-up, at most a quarter of the run");
    f("floor", floor, "share of the peak at the end of v3's cosine, cosine and wsd");
    f("decay_share", decay_share, "wsd: share of the run in which the rate falls");
  }
};

struct LossSection {
  double mtp_weight = 0.3, mtp_weight_late = 0.1, mtp_switch_at = 0.676;
  double balance_alpha = 1e-4;
  double expert_alpha = 0, device_alpha = 0, communication_alpha = 0;  // V2: 0.003, 0.05, 0.02
  double capacity_factor = 0;                                          // V2: 1.0
  double never_dropped_share = 0.1;
  double center = 0;
  bool margins = true;
  double bias_step = 3e-3;  // gamma; short runs need more than V3's 1e-3
  double bias_freeze_at = 0.966;
  void fields(auto&& f) {
    f("mtp_weight", mtp_weight, "of the multi-token prediction loss");
    f("mtp_weight_late", mtp_weight_late, "the same from loss.mtp_switch_at on");
    f("mtp_switch_at", mtp_switch_at, "share of the run");
    f("balance_alpha", balance_alpha, "of the sequence-wise balance loss; 0: none");
    f("expert_alpha", expert_alpha, "of V2's loss over experts; 0: none");
    f("device_alpha", device_alpha, "of V2's loss over groups of experts; 0: none");
    f("communication_alpha", communication_alpha, "of V2's loss over what is sent to groups; 0: none");
    f("capacity_factor", capacity_factor,
      "V2's token dropping: a group of experts takes this many times the mean load; 0: all");
    f("never_dropped_share", never_dropped_share, "share of the sequences of which no token is dropped");
    f("center", center,
      "with data.preferences: of the squared sum of a pair's scores, which keeps them around 0; 0: none");
    f("margins", margins,
      "with data.preferences: scores differ by the pair's \"margin\" at least, if it has one");
    f("bias_step", bias_step, "step of the balance bias a step of training; 0: no such balancing");
    f("bias_freeze_at", bias_freeze_at, "share of the run from which the balance bias stays");
  }
};

struct ComputeSection {
  std::string device = "cpu";
  std::string precision = "f32";
  std::string recompute = "none";
  void fields(auto&& f) {
    f("device", device, "where training computes: cpu, cuda (the first GPU) or cuda:N (docs/cuda.md)");
    f("precision", precision,
      "of matrix products: f32, bf16 (twice f32's speed with AVX512-BF16 on Zen 5), f16 (the same with "
      "AVX512-FP16, and refused without), fp8 (V3's, emulated: docs/fp8.md). Weights, gate, norms, loss and "
      "sums are f32");
    f("recompute", recompute,
      "in the backward pass, to save memory: none, selective (norms, MLA up-projections, SwiGLU), full");
  }
};

struct Fp8Section {
  std::string sums = "fp32";
  std::string activations = "tile", gradients = "tile", weights = "block";
  std::string gradient_format = "e4m3";
  void fields(auto&& f) {
    f("sums", sums,
      "fp32 (128 products at a time), hopper (as V3's GPUs: short sums of 128, promoted), hopper-unpromoted "
      "(short to the end)");
    f("activations", activations, "values that share a scale: tile (1x128, as V3), block (128x128), tensor");
    f("gradients", gradients, "the same of the gradients of activations: tile (V3), block, tensor");
    f("weights", weights, "the same of weights: block (128x128, as V3), tensor");
    f("gradient_format", gradient_format, "e4m3 (V3) or e5m2");
  }
};

struct ParallelSection {
  int64_t pipeline = 1;
  std::string schedule = "1f1b";
  int64_t chunks = 2;
  std::string layers;
  int64_t experts = 1, tensor = 1;
  bool shard_optimizer = false;
  double timeout_seconds = 600;
  void fields(auto&& f) {
    f("pipeline", pipeline, "ranks that share the layers of one model; 1: none");
    f("schedule", schedule,
      "of the pipeline: gpipe, 1f1b, interleaved, zb-h1, zb-v, dualpipe, dualpipe-v (hadal plan schedule "
      "shows them)");
    f("chunks", chunks, "interleaved: stages a rank");
    f("layers", layers, "layers of each stage, e.g. 3,4,4,3; empty: balanced by their cost");
    f("experts", experts, "data ranks that share the experts of one layer; 1: each has all");
    f("tensor", tensor, "ranks that share heads and dense matrices; 1: none");
    f("shard_optimizer", shard_optimizer,
      "with several ranks: each keeps the moments of its share of the weights and updates those (ZeRO-1)");
    f("timeout_seconds", timeout_seconds, "a rank that does not answer for so long ends the job");
  }
};

struct CheckpointSection {
  int64_t every = 0;  // steps; 0: at the end and when stopped
  double minutes = 0;
  int64_t keep = 2;
  bool background = true;
  int64_t max_skips_in_a_row = 10;
  int64_t max_rollbacks = 2;
  void fields(auto&& f) {
    f("every", every, "steps between checkpoints; 0: only at the end and when stopped");
    f("minutes", minutes, "also after this much time since the last one; 0: not");
    f("keep", keep, "checkpoints kept");
    f("background", background, "written beside training, from a copy in memory");
    f("max_skips_in_a_row", max_skips_in_a_row, "steps with a non-finite gradient before rolling back");
    f("max_rollbacks", max_rollbacks, "rollbacks before giving up (exit code 5)");
  }
};

struct EvalSection {
  int64_t every = 0;  // steps; 0: before and after
  int64_t windows = 64;
  int64_t loads_every = 50;
  void fields(auto&& f) {
    f("every", every, "steps between measurements on held-out data; 0: before and after training");
    f("windows", windows, "sequences of a measurement");
    f("loads_every", loads_every, "steps between records of the experts' loads; 0: none");
  }
};

struct TrainConfig {
  RunSection run;
  ModelSection model;
  DataSection data;
  BatchSection batch;
  OptimizerSection optimizer;
  ScheduleSection schedule;
  LossSection loss;
  ComputeSection compute;
  Fp8Section fp8;
  ParallelSection parallel;
  CheckpointSection checkpoint;
  EvalSection eval;
  void sections(auto&& f) {
    f("run", run), f("model", model), f("data", data), f("batch", batch), f("optimizer", optimizer);
    f("schedule", schedule), f("loss", loss), f("compute", compute), f("fp8", fp8);
    f("parallel", parallel), f("checkpoint", checkpoint), f("eval", eval);
  }
};

// Reads TOML over `config`. `source` names the text in errors. Throws invalid_config: "[config.train] FILE:
// line 3: ...", unknown keys with the nearest name.
void read_train_config(std::string_view toml, const std::string& source, TrainConfig& config);
TrainConfig load_train_config(const std::filesystem::path& path);

// "section.key" = value as on the command line: a number, true or false, text as it is, lists by commas.
// Throws invalid_config naming key, value and need.
void set_train_key(TrainConfig& config, const std::string& key, const std::string& value,
                   const std::string& source);

// docs/config.md.
std::string train_config_reference();

// Every key with its value and help; read_train_config() gives the same configuration back.
std::string train_config_toml(const TrainConfig& config, bool with_help = true);

// The rules of sections that other configurations have too.
void check(const OptimizerSection& optimizer, const ConfigRules& need);
void check(const ScheduleSection& schedule, const ConfigRules& need);
void check(const CheckpointSection& checkpoint, const ConfigRules& need);

// Every cross-field rule. Throws invalid_config naming `source`, key, value and need.
void check(const TrainConfig& config, const std::string& source);

// "batch.sequences: 8 before, 16 now" for each key that differs and on which the trained weights depend.
std::vector<std::string> result_changes(const TrainConfig& before, const TrainConfig& now);

}  // namespace hadal
