// hadal sandbox: run and check.
#include "hadal/sandbox/sandbox.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/flags.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

constexpr int kEnded = 124;  // by a limit, as timeout(1) says it

SandboxSpec spec_of(const SandboxOptions& o) {
  SandboxSpec spec{.command = o.command, .readable = system_folders()};
  spec.environment = {"PATH=/usr/bin:/bin", "HOME=/box", "TMPDIR=/box", "LANG=C.UTF-8"};
  // A name without a folder is looked up as a shell would, past the files of the box.
  if (spec.command[0].find('/') == std::string::npos)
    spec.command.insert(spec.command.begin(), {"/usr/bin/env", "--"});
  for (const std::string& path : o.readable)
    spec.readable.push_back(fs::absolute(path).lexically_normal().string());
  for (const std::string& path : o.files)
    spec.files.push_back({fs::path(path).filename().string(), read_file(path, size_t{256} << 20),
                          ::access(path.c_str(), X_OK) == 0});
  spec.limits = {.wall_seconds = o.wall_seconds,
                 .cpu_seconds = o.cpu_seconds,
                 .memory_bytes = o.memory_mib << 20,
                 .processes = o.processes,
                 .output_bytes = o.output_kib << 10,
                 .file_bytes = o.tmp_mib << 20,
                 .tmp_bytes = o.tmp_mib << 20,
                 .tmp_files = 16384,
                 .open_files = 256};
  return spec;
}

// A terminal gives no input: nobody could see what it is for.
std::string whole_stdin() {
  std::string text;
  if (::isatty(0)) return text;
  char block[1 << 16];
  for (ssize_t n; (n = ::read(0, block, sizeof block)) > 0;) {
    text.append(block, static_cast<size_t>(n));
    if (text.size() > size_t{256} << 20)
      throw Error(ErrorCode::kExhausted, "[sandbox.run] stdin is longer than 256 MiB.");
  }
  return text;
}

int exit_code_of(const SandboxResult& result) {
  switch (result.status) {
    case SandboxStatus::kOk:
    case SandboxStatus::kNonZero:
      return result.exit_code;
    case SandboxStatus::kSignal:
      return 128 + result.signal;
    case SandboxStatus::kInternal:
      throw Error(ErrorCode::kUnavailable, cat("[sandbox.run] ", result.detail, "."));
    default:
      return kEnded;
  }
}

}  // namespace

void add_sandbox_run(CLI::App& app, SandboxOptions& o) {
  positive_flag(app, "--wall", o.wall_seconds, "seconds");
  positive_flag(app, "--cpu", o.cpu_seconds, "seconds of all its processes");
  count_flag(app, "--memory", o.memory_mib, "MiB of all its processes");
  count_flag(app, "--processes", o.processes, "at most, threads count; 1: a shorter list of system calls");
  count_flag(app, "--output", o.output_kib, "KiB on stdout, and as much on stderr");
  count_flag(app, "--tmp", o.tmp_mib, "MiB of files it writes");
  app.add_option("--file", o.files, "copied into /box, where the command runs")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--readable", o.readable, "seen under its own path, read-only")
      ->type_name("PATH")
      ->allow_extra_args(false);
  json_flag(app, o.json);
  app.add_option("command", o.command, "program and arguments, after --")->type_name("CMD")->required();
}

int run_sandbox_run(const SandboxOptions& o) {
  SandboxSpec spec = spec_of(o);
  spec.input = whole_stdin();
  const auto pass_on = [&](int stream, std::string_view text) {
    if (o.json) return;
    if (stream == 2) {
      std::cerr << text << std::flush;
      return;
    }
    print(text);
    flush_output();
  };
  const SandboxResult result = run_sandboxed(spec, pass_on);
  const int code = exit_code_of(result);
  if (o.json)
    print(dump_json(Json{{"status", name(result.status)},
                         {"exit_code", result.exit_code},
                         {"signal", result.signal},
                         {"wall_seconds", result.wall_seconds},
                         {"cpu_seconds", result.cpu_seconds},
                         {"peak_bytes", result.peak_bytes},
                         {"out", result.out},
                         {"err", result.err},
                         {"detail", result.detail}}) +
          "\n");
  else if (code == kEnded && result.status != SandboxStatus::kNonZero)
    std::cerr << "[sandbox] ended: " << result.detail << ".\n";
  return code;
}

void add_sandbox_check(CLI::App& app, SandboxOptions& o) {
  json_flag(app, o.json);
}

int run_sandbox_check(const SandboxOptions& o) {
  Json rows = Json::array();
  bool all = true;
  std::string table;
  for (const SandboxWall& wall : probe_sandbox()) {
    all &= wall.stands || !wall.needed;
    rows.push_back(
        {{"wall", wall.name}, {"stands", wall.stands}, {"needed", wall.needed}, {"detail", wall.detail}});
    table += wall.name + std::string(wall.name.size() < 18 ? 18 - wall.name.size() : 1, ' ');
    table += cat(wall.stands ? "stands   " : "MISSING  ", wall.detail, "\n");
  }
  table += all ? "All needed walls stand.\n" : "A needed wall is missing: nothing will be run.\n";
  print(o.json ? dump_json(Json{{"walls", rows}, {"usable", all}}) + "\n" : table);
  return all ? 0 : 1;
}

}  // namespace hadal
