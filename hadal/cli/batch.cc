// hadal batch: a file of requests answered, without a server.
#include <unistd.h>

#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

#include "hadal/base/clock.h"
#include "hadal/base/json.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/input.h"
#include "hadal/cli/interrupt.h"
#include "hadal/cli/output.h"
#include "hadal/server/batch.h"

namespace hadal {
namespace {

constexpr int kFailedExit = 1, kInterruptedExit = 130;

// A line on stderr that says how far it is: rewritten on a terminal, else a new one every ten seconds.
class Progress {
 public:
  void show(const BatchCounts& counts) {
    const double now = now_seconds();
    if (now - shown_ < (terminal_ ? 0.2 : 10)) return;
    shown_ = now;
    line(counts, terminal_ ? "\r" : "", terminal_ ? "  " : "\n");
  }

  void end(const BatchCounts& counts) { line(counts, terminal_ ? "\r" : "", "  \n"); }

 private:
  void line(const BatchCounts& c, const char* before, const char* after) const {
    const double rate = static_cast<double>(c.answer_tokens) / std::max(1e-9, now_seconds() - began_);
    std::fprintf(stderr, "%s%lld of %lld answered, %lld with an error, %lld earlier; %.1f tokens/s%s", before,
                 static_cast<long long>(c.succeeded + c.failed), static_cast<long long>(c.lines),
                 static_cast<long long>(c.failed), static_cast<long long>(c.earlier), rate, after);
  }

  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  const double began_ = now_seconds();
  double shown_ = now_seconds();
};

}  // namespace

int run_batch(const BatchCommandOptions& o) {
  constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max() / 2;  // in_flight is one
  EngineThread engine(Engine::open(o.model, o.engine_config()), {.requests = kNoLimit, .tokens = kNoLimit});
  Api api({.model = o.served_name(), .chat_template = o.chat_template}, engine);
  const InterruptWatch interrupt;
  Progress progress;
  const BatchCounts counts = run_batch(o.requests, o.results, api, engine,
                                       {.in_flight = o.in_flight,
                                        .interrupt = &interrupt.flag(),
                                        .progress = [&](const BatchCounts& c) { progress.show(c); }});
  progress.end(counts);
  if (counts.interrupted) std::fprintf(stderr, "interrupted: the same command goes on from here\n");
  if (o.json)
    print(dump_json(Json{{"lines", counts.lines},
                         {"earlier", counts.earlier},
                         {"succeeded", counts.succeeded},
                         {"failed", counts.failed},
                         {"prompt_tokens", counts.prompt_tokens},
                         {"answer_tokens", counts.answer_tokens},
                         {"interrupted", counts.interrupted}}) +
          "\n");
  return counts.interrupted ? kInterruptedExit : counts.failed > 0 ? kFailedExit : 0;
}

}  // namespace hadal
