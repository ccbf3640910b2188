// What a user tells a run of training while it goes on, and what it tells the user.
#pragma once
#include <atomic>
#include <filesystem>
#include <map>
#include <string>

namespace hadal {

// While one lives: SIGINT and SIGTERM ask for a stop, SIGUSR1 for a checkpoint; a file larger than is allowed
// is an error of the write, not the end.
class TrainSignals {
 public:
  TrainSignals();
  ~TrainSignals();
};
std::atomic<bool>& stop_asked();
std::atomic<bool>& save_asked();

// "hadal: TEXT" on stderr.
void note(const std::string& text);

// The tokenizer's files in a run folder: they go along into each checkpoint, so that it is a model folder.
std::map<std::string, std::string> files_beside(const std::filesystem::path& out);

}  // namespace hadal
