// hadal plan: a training step on a cluster, on paper.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/cli/plan_picture.h"
#include "hadal/planner/cluster_plan.h"

namespace hadal {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;

template <class... Values>
std::string form(const char* format, const Values&... values) {
  char text[400];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

std::string commas(double value) {
  return with_commas(static_cast<int64_t>(value + 0.5));
}

ClusterFacts facts_of(const PlanOptions& o) {
  ClusterFacts facts = cluster_facts(o.hardware);
  for (const auto& [name, value] : o.facts) set_fact(facts, name, value);
  return facts;
}

ClusterJob job_of(const PlanOptions& o) {
  ClusterJob job{.model = o.preset.empty() ? load_config(o.config) : preset(o.preset),
                 .gpus = o.gpus,
                 .batch = o.batch,
                 .length = o.length,
                 .fp8 = o.precision == "fp8",
                 .bf16_moments = o.moments == "bf16"};
  require_dense_attention(job.model, o.config);
  if (o.length > job.model.max_positions)
    throw Error(ErrorCode::kInvalidArgument, cat("[cli.plan] --length ", o.length, ": this model has ",
                                                 job.model.max_positions, " positions. Choose no more."));
  return job;
}

std::string title_of(const PlanOptions& o) {
  return cat(o.preset.empty() ? o.config : o.preset, " on ", with_commas(o.gpus), " x ", o.hardware, ", ",
             o.precision, ", a step of ", with_commas(o.batch), " x ", with_commas(o.length), " tokens");
}

std::string speed_lines(const ClusterPlan& p, const ClusterFacts& facts) {
  return cat(
      "  step        ",
      form("%.3g s: pipeline %.3g with %.1f %% idle, gradients and weights exchanged %.3g, update %.3g\n",
           p.step_seconds, p.pipeline.seconds, 100 * p.bubble, p.reduction_seconds, p.optimizer_seconds),
      "  speed       ", commas(p.tokens_per_second),
      form(" tokens/s; MFU %.1f %% of the BF16 peak, %.1f %% of FP8's (%.4g GFLOP a token)\n",
           100 * p.mfu_bf16, 100 * p.mfu_fp8, p.flops_per_token / 1e9),
      "  cost        ", commas(p.hours_per_trillion), " GPU hours a trillion tokens, $",
      commas(p.cost_per_trillion), form(" at $%.4g an hour\n", facts.price));
}

std::string memory_table(const ClusterPlan& p, const ClusterFacts& facts) {
  std::string out = "  memory of a GPU, GiB\n    rank";
  p.memory[0].fields([&](const char* name, double) { out += form(" %11s", name); });
  out += "       total   stages in flight, at most\n";
  for (size_t r = 0; r < p.memory.size(); ++r) {
    out += form("    %4zu", r);
    p.memory[r].fields([&](const char*, double bytes) { out += form(" %11.2f", bytes / kGiB); });
    out += form(" %11.2f   %.4g\n", p.memory[r].total() / kGiB, p.pipeline.peak_held[r]);
  }
  const double most = p.fullest().total() / kGiB;
  return out + (p.fits(facts) ? form("    fits: %.1f of %.4g\n", most, facts.memory_gib)
                              : form("    DOES NOT FIT: %.1f of %.4g\n", most, facts.memory_gib));
}

std::string traffic_lines(const ClusterPlan& p) {
  std::string out = "  a GPU sends in a step, at most, GB\n";
  const auto row = [&](const char* label, double bytes) {
    if (bytes > 0) out += form("    %-44s %10.2f\n", label, bytes / 1e9);
  };
  const ClusterTraffic& t = p.traffic;
  row("pipeline", t.pipeline);
  row("dispatch to experts, between nodes", t.dispatch_inter);
  row("dispatch to experts, in the node", t.dispatch_intra);
  row("combine, between nodes", t.combine_inter);
  row("combine, in the node", t.combine_intra);
  row("tensor-parallel sums", t.tensor);
  row("gradients (reduce-scatter, fp32)", t.reduce_scatter);
  row("weights (all-gather, bf16)", t.all_gather);
  return out;
}

std::string stage_table(const ClusterPlan& p, int64_t num_layers) {
  std::string out =
      "  stages       units    ms of one micro-batch: forward  input's gradient  weights'  exchange F, B\n";
  for (size_t s = 0; s < p.stages.size(); ++s) {
    const StageTimes& t = p.stages[s];
    const int64_t first = p.first_units[s], last = p.first_units[s + 1] - 1;
    std::string units = first == last ? cat(first) : cat(first, "-", last);
    if (last == num_layers)
      units = first == last ? "head" : cat(first, first == last - 1 ? "" : cat("-", last - 1), "+head");
    out += form("    %4zu %13s %31.2f %17.2f %9.2f %8.2f %6.2f\n", s, units.c_str(), 1e3 * t.forward,
                1e3 * t.input_grad, 1e3 * t.weight_grad, 1e3 * t.forward_exchange, 1e3 * t.backward_exchange);
  }
  return out;
}

template <class Fields>
Json fields_json(const Fields& fields) {
  Json out = Json::object();
  fields.fields([&](const char* name, double value) { out[name] = value; });
  return out;
}

Json plan_json(const ClusterPlan& p, const ClusterFacts& facts) {
  Json out{{"layout", text_of(p.layout)},
           {"microbatches", p.microbatches},
           {"step_seconds", p.step_seconds},
           {"pipeline_seconds", p.pipeline.seconds},
           {"reduction_seconds", p.reduction_seconds},
           {"optimizer_seconds", p.optimizer_seconds},
           {"bubble", p.bubble},
           {"tokens_per_second", p.tokens_per_second},
           {"flops_per_token", p.flops_per_token},
           {"mfu_bf16", p.mfu_bf16},
           {"mfu_fp8", p.mfu_fp8},
           {"gpu_hours_per_trillion_tokens", p.hours_per_trillion},
           {"cost_per_trillion_tokens", p.cost_per_trillion},
           {"fits", p.fits(facts)}};
  Json ranks = Json::array(), stages = Json::array();
  for (size_t r = 0; r < p.memory.size(); ++r) {
    Json memory = fields_json(p.memory[r]);
    memory["total"] = p.memory[r].total();
    ranks.push_back(Json{{"memory_bytes", memory},
                         {"idle_seconds", p.pipeline.idle[r]},
                         {"peak_held", p.pipeline.peak_held[r]}});
  }
  for (size_t s = 0; s < p.stages.size(); ++s) {
    const StageTimes& t = p.stages[s];
    stages.push_back(Json{{"first_unit", p.first_units[s]},
                          {"units", p.first_units[s + 1] - p.first_units[s]},
                          {"forward_seconds", t.forward},
                          {"input_grad_seconds", t.input_grad},
                          {"weight_grad_seconds", t.weight_grad},
                          {"forward_exchange_seconds", t.forward_exchange},
                          {"backward_exchange_seconds", t.backward_exchange}});
  }
  out["ranks"] = std::move(ranks), out["stages"] = std::move(stages);
  out["traffic_bytes"] = fields_json(p.traffic);
  return out;
}

Json job_json(const PlanOptions& o, ClusterFacts facts) {
  Json all = Json::object();
  facts.fields([&](const char* name, auto& value, FactRange, const char*) { all[name] = value; });
  return {{"model", o.preset.empty() ? o.config : o.preset},
          {"gpus", o.gpus},
          {"batch", o.batch},
          {"length", o.length},
          {"precision", o.precision},
          {"moments", o.moments},
          {"hardware", o.hardware},
          {"facts", all}};
}

int show_one(const PlanOptions& o, const ClusterJob& job, const ClusterFacts& facts) {
  const ClusterPlan plan = plan_cluster(job, parse_layout(o.layout, o.gpus), facts);
  if (!o.svg.empty()) write_file(o.svg, plan_svg(plan, facts, cat(title_of(o), "; ", text_of(plan.layout))));
  if (o.json) {
    Json out = job_json(o, facts);
    out["plan"] = plan_json(plan, facts);
    print(dump_json(out) + "\n");
    return 0;
  }
  print(cat(title_of(o), "\n", text_of(plan.layout), ": ", plan.microbatches,
            plan.microbatches == 1 ? " micro-batch\n" : " micro-batches\n", speed_lines(plan, facts),
            memory_table(plan, facts), traffic_lines(plan), stage_table(plan, job.model.num_layers)));
  return 0;
}

std::string proposal_text(const ClusterProposal& found) {
  std::string out = "    tokens/s   MFU  idle   GiB    GPU hours   layout\n";
  for (const ClusterPlan& p : found.best)
    out += form("%12s %5.1f %5.1f %5.1f %12s   %s\n", commas(p.tokens_per_second).c_str(), 100 * p.mfu_bf16,
                100 * p.bubble, p.fullest().total() / kGiB, commas(p.hours_per_trillion).c_str(),
                text_of(p.layout).c_str());
  return out + "MFU: % of the BF16 peak. GPU hours: of a trillion tokens.\n";
}

int propose(const PlanOptions& o, const ClusterJob& job, const ClusterFacts& facts) {
  const ClusterProposal found = propose_layouts(job, facts, static_cast<size_t>(o.top));
  std::string counts = cat(with_commas(found.tried), " layouts tried, ", with_commas(found.fitting), " fit");
  for (const auto& [rule, count] : found.refused) counts += cat("; ", with_commas(count), " break: ", rule);
  if (found.best.empty())
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.plan] no layout will do: ", counts,
                    ". Take more GPUs, a batch with more divisors, or bf16 moments."));
  if (!o.svg.empty())
    write_file(o.svg, plan_svg(found.best[0], facts, cat(title_of(o), "; ", text_of(found.best[0].layout))));
  if (o.json) {
    Json out = job_json(o, facts);
    out["tried"] = found.tried, out["fitting"] = found.fitting, out["refused"] = found.refused;
    out["plans"] = Json::array();
    for (const ClusterPlan& p : found.best) out["plans"].push_back(plan_json(p, facts));
    print(dump_json(out) + "\n");
    return 0;
  }
  print(
      cat(title_of(o), "\n", counts, "\n", proposal_text(found), "All about one: the same with --layout.\n"));
  return 0;
}

}  // namespace

int run_plan(const PlanOptions& o) {
  const ClusterFacts facts = facts_of(o);
  const ClusterJob job = job_of(o);
  return o.layout.empty() ? propose(o, job, facts) : show_one(o, job, facts);
}

}  // namespace hadal
