#include "hadal/cli/interrupt.h"

#include <csignal>

namespace hadal {
namespace {

std::atomic<bool> was_interrupted{false};

void on_signal(int signal) {
  was_interrupted = true;
  std::signal(signal, SIG_DFL);
}

}  // namespace

InterruptWatch::InterruptWatch() {
  was_interrupted = false;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

InterruptWatch::~InterruptWatch() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

const std::atomic<bool>& InterruptWatch::flag() const {
  return was_interrupted;
}

}  // namespace hadal
