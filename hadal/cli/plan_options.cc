// The flags of hadal plan.
#include "hadal/base/text.h"
#include "hadal/cli/flags.h"
#include "hadal/cli/options.h"
#include "hadal/planner/cluster_facts.h"

namespace hadal {
namespace {

// Sums and products of these stay exact.
CLI::Option* size_flag(CLI::App& app, const std::string& name, int64_t& value, const std::string& help) {
  return number_flag(
      app, name, value, help, [](int64_t x) { return x >= 1 && x <= (int64_t{1} << 24); },
      "an integer from 1 to 16777216");
}

}  // namespace

void add_plan(CLI::App& app, PlanOptions& o) {
  app.require_subcommand(0, 1);
  choice_flag(app, "--preset", o.preset, "built-in model", preset_names());
  file_flag(app, "--config", o.config, "config.json of the model, or its folder");
  size_flag(app, "--gpus", o.gpus, "in the cluster")->default_str("");
  app.add_option(
         "--layout", o.layout,
         "pp=16,ep=64,dp=128,tp=1,schedule=dualpipe,chunks=2,micro=1,recompute=selective,zero1=1: any of "
         "these; without --layout the best ones are looked for")
      ->type_name("KEY=VALUE,...");
  size_flag(app, "--batch", o.batch, "sequences a step");
  size_flag(app, "--length", o.length, "tokens a sequence");
  choice_flag(app, "--precision", o.precision, "of matrix products, cached activations and dispatched rows",
              {"fp8", "bf16"});
  choice_flag(app, "--moments", o.moments, "of the optimizer", {"bf16", "f32"});
  choice_flag(app, "--hardware", o.hardware, "where the facts below come from", hardware_names());
  count_flag(app, "--top", o.top, "layouts to print of those looked for");
  file_flag(app, "--svg", o.svg, "write a picture of memory and time here");
  json_flag(app, o.json);
  ClusterFacts facts = cluster_facts(o.hardware);
  facts.fields([&](const char* name, auto& value, FactRange, const char* help) {
    app.add_option_function<std::string>(
           cat("--assume.", name),
           [&o, name = std::string(name)](const std::string& text) { o.facts.emplace_back(name, text); },
           help)
        ->type_name("N")
        ->default_str(cat(value))
        ->group("Facts of the cluster (defaults: h800)");
  });
}

}  // namespace hadal
