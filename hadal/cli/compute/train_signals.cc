#include "hadal/cli/compute/train_signals.h"

#include <csignal>
#include <cstdio>

#include "hadal/base/file.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

std::atomic<bool> stop{false}, save{false};

void on_stop(int signal) {
  stop = true;
  std::signal(signal, SIG_DFL);  // a second one ends the process
}

void on_save(int) {
  save = true;
}

}  // namespace

TrainSignals::TrainSignals() {
  stop = save = false;
  std::signal(SIGINT, on_stop);
  std::signal(SIGTERM, on_stop);
  std::signal(SIGUSR1, on_save);
  std::signal(SIGXFSZ, SIG_IGN);
}

TrainSignals::~TrainSignals() {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGXFSZ}) std::signal(signal, SIG_DFL);
}

std::atomic<bool>& stop_asked() {
  return stop;
}

std::atomic<bool>& save_asked() {
  return save;
}

void note(const std::string& text) {
  std::fprintf(stderr, "hadal: %s\n", text.c_str());
}

std::map<std::string, std::string> files_beside(const fs::path& out) {
  std::map<std::string, std::string> files;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    if (fs::exists(out / name)) files[name] = read_file(out / name);
  return files;
}

}  // namespace hadal
