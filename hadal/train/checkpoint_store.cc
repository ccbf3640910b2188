#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/sha256.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/train/train_state.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

std::string step_name(int64_t step) {
  std::string digits = std::to_string(step);
  if (digits.size() < 6) digits.insert(0, 6 - digits.size(), '0');
  return "step-" + digits;
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

// Piece by piece: a mapped file would count as memory of the process, a checkpoint as much as the training.
std::string file_sha256(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string piece(1 << 20, '\0');
  Sha256 hash;
  while (file) {
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    hash.update(std::string_view(piece.data(), static_cast<size_t>(file.gcount())));
  }
  if (!file.eof())
    throw Error(ErrorCode::kUnavailable, cat("[train.checkpoint] ", path.string(), ": cannot be read."));
  return hex(hash.finish());
}

// Relative paths of all files below a folder, sorted.
std::vector<std::string> files_below(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) names.push_back(fs::relative(entry.path(), folder).string());
  std::sort(names.begin(), names.end());
  return names;
}

Json entry_of(const fs::path& folder, const std::string& name) {
  return {{"bytes", fs::file_size(folder / name)}, {"sha256", file_sha256(folder / name)}};
}

// `known`: entries that need not be made again.
void write_manifest(const fs::path& folder, const std::string& known) {
  Json files = parse_json(known, "the files of the ranks");
  for (const std::string& name : files_below(folder))
    if (!files.contains(name)) files[name] = entry_of(folder, name);
  write_file(folder / "manifest.json", dump_json(Json{{"files", files}}, 1) + "\n");
}

// std::filesystem's errors in our words.
void in_our_words(const char* op, auto&& act) {
  try {
    act();
  } catch (const fs::filesystem_error& e) {
    const bool full = e.code() == std::errc::no_space_on_device;
    throw Error(full ? ErrorCode::kExhausted : ErrorCode::kUnavailable,
                cat("[train.", op, "] ", e.path1().string(), ": ", e.code().message(), "."));
  }
}

}  // namespace

std::string manifest_entries(const fs::path& folder, const std::vector<std::string>& names) {
  Json files = Json::object();
  for (const std::string& name : names) files[name] = entry_of(folder, name);
  return dump_json(files);
}

std::string checkpoint_problem(const fs::path& folder) {
  try {
    if (!fs::exists(folder / "manifest.json"))
      return "manifest.json is missing: it was not written to the end";
    const Json manifest = parse_json(read_file(folder / "manifest.json"), "manifest.json");
    for (const auto& [name, entry] : manifest.at("files").items()) {
      if (!fs::exists(folder / name)) return cat(name, " is missing");
      const uint64_t bytes = fs::file_size(folder / name), want = entry.at("bytes");
      if (bytes != want) return cat(name, " has ", bytes, " bytes, the manifest says ", want);
      if (file_sha256(folder / name) != entry.at("sha256").get<std::string>())
        return cat(name, " is not what was written: its SHA-256 differs from the manifest's");
    }
    if (!manifest.at("files").contains("state.json")) return "state.json is not in the manifest";
    read_counters(folder);
    return "";
  } catch (const std::exception& e) {
    return e.what();
  }
}

struct CheckpointStore::Writer {
  std::thread thread;
  std::exception_ptr error;
  int64_t step = 0;
};

CheckpointStore::CheckpointStore(fs::path folder, int64_t keep, bool background,
                                 std::map<std::string, std::string> extra, Note note)
    : folder_(std::move(folder)),
      keep_(keep),
      background_(background),
      extra_(std::move(extra)),
      note_(std::move(note)) {
  in_our_words("checkpoint", [&] {
    fs::create_directories(folder_);
    // What a killed process has left: a folder on its way out that was not replaced yet comes back.
    std::vector<fs::path> left;
    for (const auto& entry : fs::directory_iterator(folder_))
      if (entry.path().filename().string().starts_with(".step-")) left.push_back(entry.path());
    for (const fs::path& path : left) {
      const fs::path target = folder_ / path.stem().string().substr(1);
      if (path.extension() == ".old" && !fs::exists(target))
        fs::rename(path, target);
      else
        fs::remove_all(path);
    }
  });
}

CheckpointStore::~CheckpointStore() {
  if (writer_ && writer_->thread.joinable()) writer_->thread.join();
}

void CheckpointStore::wait(bool tell) {
  if (!writer_) return;
  if (writer_->thread.joinable()) writer_->thread.join();
  const std::unique_ptr<Writer> done = std::move(writer_);
  if (!done->error) return;
  if (!tell) std::rethrow_exception(done->error);
  try {
    std::rethrow_exception(done->error);
  } catch (const std::exception& e) {
    note_(cat("the checkpoint of step ", done->step, " could not be written, training goes on: ", e.what()));
  }
}

void CheckpointStore::save(TrainSnapshot snapshot) {
  wait(/*tell=*/true);
  writer_ = std::make_unique<Writer>();
  writer_->step = snapshot.counters.step;
  const auto work = [this, writer = writer_.get(), snapshot = std::move(snapshot)] {
    try {
      in_our_words("checkpoint", [&] { write(snapshot); });
    } catch (...) {
      writer->error = std::current_exception();
    }
  };
  if (background_) {
    writer_->thread = std::thread(work);
  } else {
    work();
  }
}

void CheckpointStore::finish() {
  wait(/*tell=*/false);
}

fs::path CheckpointStore::partial(int64_t step) const {
  return folder_ / ("." + step_name(step) + ".partial");
}

void CheckpointStore::write(const TrainSnapshot& snapshot) const {
  const int64_t step = snapshot.counters.step;
  fs::remove_all(partial(step));
  try {
    fs::create_directories(partial(step));
    write_train_state(partial(step), snapshot);
    put_in_place(step, "{}");
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(partial(step), ignored);
    throw;
  }
}

void CheckpointStore::put_in_place(int64_t step, const std::string& files) const {
  const fs::path target = folder_ / step_name(step), from = partial(step);
  for (const auto& [name, content] : extra_) write_file(from / name, content);
  write_manifest(from, files);
  sync_folder(from);
  // A folder of this step is one that could not be used or the same state: either may go once this is whole.
  const fs::path old = folder_ / ("." + step_name(step) + ".old");
  if (fs::exists(target)) fs::rename(target, old);
  fs::rename(from, target);
  sync_folder(folder_);
  fs::remove_all(old);
  prune(step);
}

fs::path CheckpointStore::begin(int64_t step) {
  wait(/*tell=*/true);
  in_our_words("checkpoint", [&] {
    fs::remove_all(partial(step));
    fs::create_directories(partial(step));
  });
  return partial(step);
}

void CheckpointStore::publish(const TrainCounters& counters, int64_t optimizer_steps,
                              const std::string& files) {
  in_our_words("checkpoint", [&] {
    write_counters(partial(counters.step), counters, optimizer_steps);
    put_in_place(counters.step, files);
  });
}

void CheckpointStore::abandon(int64_t step, const std::string& error) {
  std::error_code ignored;
  fs::remove_all(partial(step), ignored);
  writer_ = std::make_unique<Writer>();  // told by the next call, thrown by finish()
  writer_->step = step;
  writer_->error = std::make_exception_ptr(Error(ErrorCode::kUnavailable, error));
}

std::vector<std::pair<int64_t, fs::path>> CheckpointStore::all() const {
  std::vector<std::pair<int64_t, fs::path>> found;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-") || name.find_first_not_of("0123456789", 5) != std::string::npos) continue;
    if (name.size() > 5 && name.size() < 20) found.emplace_back(std::stoll(name.substr(5)), entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Only folders up to the one just published count and go: it is whole, so one always stays.
void CheckpointStore::prune(int64_t newest_step) const {
  auto found = all();
  std::erase_if(found, [&](const auto& one) { return one.first > newest_step; });
  for (size_t i = 0; i + static_cast<size_t>(keep_) < found.size(); ++i) {
    // Renamed first: a half-removed folder must not look like a checkpoint.
    const fs::path going = folder_ / ("." + found[i].second.filename().string() + ".gone");
    fs::rename(found[i].second, going);
    fs::remove_all(going);
  }
}

std::optional<fs::path> CheckpointStore::newest(bool good) {
  wait(/*tell=*/true);
  auto found = all();
  std::reverse(found.begin(), found.end());
  for (const auto& [step, folder] : found) {
    const std::string problem = checkpoint_problem(folder);
    if (!problem.empty()) {
      note_(cat(folder.string(), " cannot be used, an earlier one is looked for: ", problem));
      continue;
    }
    if (!good || read_counters(folder).skips_in_a_row == 0) return folder;
  }
  return std::nullopt;
}

void CheckpointStore::drop_after(int64_t step) {
  wait(/*tell=*/true);
  for (const auto& [each, folder] : all())
    if (each > step) in_our_words("checkpoint", [&, folder = folder] { fs::remove_all(folder); });
}

}  // namespace hadal
