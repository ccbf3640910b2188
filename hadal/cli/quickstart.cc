// hadal quickstart: from text to a served model, by public commands; the report of it.
#include <cstdio>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/cli/recipe.h"

namespace hadal {
namespace {

RecipeInputs inputs_of(const QuickstartOptions& o) {
  return {.out = o.out, .data = o.data, .seed = o.seed, .threads = o.threads, .minutes = o.minutes};
}

Recipe recipe_of(const QuickstartOptions& o) {
  return o.recipe.empty() ? parse_recipe(kQuickstartRecipe, "runs/quickstart.toml", inputs_of(o))
                          : parse_recipe(read_file(o.recipe), o.recipe, inputs_of(o));
}

}  // namespace

int run_quickstart(const QuickstartOptions& o) {
  if (o.print_recipe) {
    print(o.recipe.empty() ? std::string(kQuickstartRecipe) : read_file(o.recipe));
    return 0;
  }
  const Recipe recipe = recipe_of(o);
  if (const int code = run_recipe(recipe, inputs_of(o)); code != 0) return code;
  const std::filesystem::path report = std::filesystem::path(o.out) / "report.html";
  write_file(report, recipe_report_html(recipe, o.out, o.seed));
  const std::string model = (std::filesystem::path(o.out) / recipe.model).string();
  std::fprintf(stderr, "\nThe report: %s\nThe model:  %s\n", report.c_str(), model.c_str());
  if (!o.serve) {
    std::fprintf(stderr, "Talk to it: hadal serve %s\n", model.c_str());
    return 0;
  }
  std::fprintf(stderr, "Serving it (Ctrl-C ends this; hadal serve %s starts it again):\n", model.c_str());
  ServeOptions serve;
  serve.model = model, serve.port = o.port, serve.threads = o.threads;
  return run_serve(serve);
}

}  // namespace hadal
