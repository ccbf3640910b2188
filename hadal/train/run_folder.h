// The folder of one training run: who works in it, and with which configuration.
//
//   run.lock         held while a process trains here
//   config.toml      the effective configuration
//   metrics.jsonl timing.jsonl tensorboard/   see hadal/report/metrics.h
//   checkpoints/     see hadal/train/train_state.h
//   config.json model.safetensors tokenizer.json ...   the trained model, at the end
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "hadal/config/train_config.h"

namespace hadal {

class RunFolder {
 public:
  // Creates the folder and takes its lock. Throws unavailable with the process that has it.
  explicit RunFolder(std::filesystem::path path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  bool has_checkpoints() const;

  // Removes what earlier runs left: checkpoints, metrics, configuration; not the model.
  void discard();
  // Compares with the configuration the checkpoints were made with and stores this one. Throws
  // invalid_argument naming the keys that would change the result, unless forced: then `note` is told.
  void settle_config(const TrainConfig& config, bool force,
                     const std::function<void(const std::string&)>& note);
  // The same for another kind of configuration: its TOML, and what differs from that of a file.
  void settle_config(const std::string& toml,
                     const std::function<std::vector<std::string>(const std::filesystem::path&)>& changes,
                     bool force, const std::function<void(const std::string&)>& note);

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

}  // namespace hadal
