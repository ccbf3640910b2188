// Hostile programs of tests/cases/sandbox_attacks.jsonl and of the program sandbox_attacks, as specs of runs.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/sandbox/sandbox.h"

namespace hadal {

struct AttackCase {
  std::string name;
  SandboxSpec spec;
  bool no_artefact = false;  // what it leaves as "artefact" must not come out
};

// "{{x*3}}" is "xxx".
inline std::string expand_repeats(std::string text) {
  for (size_t begin; (begin = text.find("{{")) != std::string::npos;) {
    const size_t end = text.find("}}", begin + 2), star = text.rfind('*', end);
    const std::string part = text.substr(begin + 2, star - begin - 2);
    std::string all;
    for (int left = std::stoi(text.substr(star + 1, end - star - 1)); left > 0; --left) all += part;
    text.replace(begin, end + 2 - begin, all);
  }
  return text;
}

inline SandboxLimits attack_limits(int64_t processes) {
  return {.wall_seconds = 0.6,
          .cpu_seconds = 0.5,
          .memory_bytes = 64 << 20,
          .stack_bytes = 8 << 20,
          .processes = processes,
          .tmp_bytes = 16 << 20};
}

// Each program twice: as one process, and where several are allowed. `mark` is among the arguments of all.
inline std::vector<AttackCase> compiled_attacks(const std::string& mark) {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  const std::string program = read_file(folder / "sandbox_attacks");
  SandboxSpec list{
      .command = {"/box/attack"}, .files = {{"attack", program, true}}, .readable = library_folders()};
  std::istringstream names(run_sandboxed(list).out);
  std::vector<AttackCase> all;
  for (std::string name; std::getline(names, name);)
    for (const int64_t processes : {1, 8}) {
      SandboxSpec spec = list;
      spec.command = {"/box/attack", name, mark};
      spec.limits = attack_limits(processes);
      all.push_back({name + (processes > 1 ? " of several" : ""), spec});
    }
  return all;
}

inline SandboxSpec script_spec(const std::string& language, const std::string& code,
                               const std::string& mark) {
  SandboxSpec spec{.readable = system_folders()};
  spec.environment = {"PATH=/usr/bin:/bin", "HOME=/box", "TMPDIR=/box", "LANG=C.UTF-8"};
  spec.limits = attack_limits(12);
  if (language == "shell") spec.command = {"/bin/sh", "-c", code, mark};
  if (language == "python") spec.command = {"/usr/bin/python3", "-c", code, mark};
  if (language == "compile") {
    spec.command = {"/usr/bin/g++",
                    "-D" + mark,
                    "-std=c++20",
                    "-O1",
                    "-pipe",
                    "-fmax-errors=3",
                    "-ftemplate-depth=200",
                    "-fconstexpr-ops-limit=10000000",
                    "-o",
                    "artefact",
                    "main.cc"};
    spec.files = {{"main.cc", code}};
    spec.limits.wall_seconds = 2.5, spec.limits.cpu_seconds = 2;
    spec.limits.memory_bytes = 512 << 20;
    spec.limits.tmp_bytes = 64 << 20;
    spec.limits.file_bytes = 64 << 20;
    spec.limits.open_files = 64;
  }
  return spec;
}

inline std::vector<AttackCase> script_attacks(const std::string& language, const std::string& mark) {
  std::istringstream lines(read_file("tests/cases/sandbox_attacks.jsonl"));
  std::vector<AttackCase> all;
  for (std::string line; std::getline(lines, line);) {
    const Json row = parse_json(line, "sandbox_attacks.jsonl");
    if (row.at("language") != language) continue;
    AttackCase attack{row.at("name"), script_spec(language, expand_repeats(row.at("code")), mark)};
    attack.no_artefact = row.contains("artefact");
    if (attack.no_artefact) attack.spec.artefacts = {"artefact"}, attack.spec.artefact_bytes = 1000;
    all.push_back(std::move(attack));
  }
  return all;
}

}  // namespace hadal
