// What attacks could leave on the host.
#pragma once
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

namespace hadal {

inline std::string slurp(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Names of the entries; "" of a folder that cannot be read.
inline std::string names_in(const std::string& folder, const std::string& part = "") {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.path().filename().string().find(part) != std::string::npos)
      names.insert(entry.path().filename());
  std::string all;
  for (const std::string& name : names) all += name + " ";
  return all;
}

// Processes whose arguments hold `mark`.
inline int marked_processes(const std::string& mark) {
  int found = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error))
    if (std::isdigit(entry.path().filename().string()[0]) &&
        entry.path().filename() != std::to_string(::getpid()))
      found += slurp(entry.path() / "cmdline").find(mark) != std::string::npos;
  return found;
}

inline std::map<std::string, std::string> host_snapshot(const std::string& mark) {
  std::map<std::string, std::string> all;
  for (const char* folder :
       {"/", "/etc", "/dev", "/usr", "/usr/lib", "/root", "/var", "/home", "/proc/self/fd"})
    all[folder] = names_in(folder);
  for (const char* folder : {"/tmp", "/dev/shm", "/var/tmp", "/run"})
    all[folder] = names_in(folder, "attack");
  for (const char* file :
       {"/proc/self/mountinfo", "/proc/sysvipc/shm", "/proc/sysvipc/msg", "/proc/sysvipc/sem", "/etc/passwd",
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname"})
    all[file] = slurp(file);
  all["processes"] = std::to_string(marked_processes(mark));
  return all;
}

}  // namespace hadal
