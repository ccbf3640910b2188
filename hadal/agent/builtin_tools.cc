#include "hadal/agent/builtin_tools.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>

#include "hadal/agent/calculator.h"
#include "hadal/agent/document_search.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/sandbox/descriptor.h"
#include "hadal/sandbox/sandbox.h"

namespace hadal {
namespace {

constexpr int64_t kMaxReadBytes = 16 << 20;

Json text_schema(const char* name, const char* help) {
  return {{"type", "object"},
          {"properties", {{name, {{"type", "string"}, {"description", help}}}}},
          {"required", Json::array({name})},
          {"additionalProperties", false}};
}

Tool calculator_tool() {
  return {"calculator", "Exact value of an arithmetic expression: numbers, + - * / % ^ and brackets.",
          text_schema("expression", "such as (12.5 + 7) * 3 / 4"), [](const Json& arguments) -> Json {
            return {{"value", calculate(arguments["expression"].get<std::string>())}};
          }};
}

Json run_code(const std::vector<std::string>& command, const std::string& code, const BuiltinToolOptions& o) {
  SandboxSpec spec{.command = command, .files = {{"code", code}}, .readable = system_folders()};
  spec.environment = {"PATH=/usr/bin:/bin", "HOME=/box", "TMPDIR=/box", "LANG=C.UTF-8"};
  spec.limits = {
      .wall_seconds = o.seconds, .cpu_seconds = o.seconds, .memory_bytes = o.memory_bytes, .processes = 32};
  spec.limits.output_bytes = 64 << 10, spec.limits.cut_output = true;
  spec.limits.file_bytes = spec.limits.tmp_bytes = 64 << 20;
  spec.limits.tmp_files = 4096, spec.limits.open_files = 256;
  const SandboxResult result = run_sandboxed(spec);
  if (result.status == SandboxStatus::kInternal)
    throw Error(ErrorCode::kUnavailable, "[agent.run] " + result.detail + ".");
  Json json{{"stdout", result.out}, {"stderr", result.err}, {"exit_code", result.exit_code}};
  if (result.status != SandboxStatus::kOk && result.status != SandboxStatus::kNonZero)
    json["ended"] = result.detail;
  return json;
}

Tool code_tool(const std::string& name, const BuiltinToolOptions& options) {
  if (const std::string& refusal = sandbox_refusal(); !refusal.empty())
    throw Error(ErrorCode::kUnsupported, cat("[agent.tools] ", name, ": ", refusal));
  const bool python = name == "python";
  const std::vector<std::string> command =
      python ? std::vector<std::string>{"/usr/bin/python3", "-I", "-B", "code"}
             : std::vector<std::string>{"/bin/sh", "code"};
  return {name,
          cat("Runs a ", python ? "Python program" : "shell script",
              ", without network, alone in a new folder, for at most ", options.seconds,
              " s. Gives what it prints."),
          text_schema("code", python ? "the program; print what you want to see" : "the script"),
          [command, options](const Json& arguments) {
            return run_code(command, arguments["code"].get<std::string>(), options);
          }};
}

Tool search_tool(const BuiltinToolOptions& options) {
  const auto search = std::make_shared<const DocumentSearch>(options.documents);
  Json schema = text_schema("query", "words to look for");
  schema["properties"]["count"] = {{"type", "integer"}, {"minimum", 1}, {"maximum", 20}};
  return {"search", "Finds passages of the documents by their words, the best first.", schema,
          [search](const Json& arguments) {
            Json hits = Json::array();
            const auto count = static_cast<size_t>(arguments.value("count", 5));
            for (const DocumentSearch::Hit& hit : search->find(arguments["query"].get<std::string>(), count))
              hits.push_back({{"document", hit.passage->document},
                              {"line", hit.passage->first_line},
                              {"text", hit.passage->text}});
            return Json{{"passages", hits}};
          }};
}

// The kernel keeps the path beneath the folder, whatever dots and links it holds.
std::string read_beneath(const std::filesystem::path& folder, const std::string& path) {
  const Descriptor root(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  open_how how{};
  how.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const Descriptor file(static_cast<int>(::syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof how)));
  struct stat status {};
  if (!file.open() || ::fstat(file.get(), &status) < 0 || !S_ISREG(status.st_mode))
    throw Error(ErrorCode::kNotFound, cat("[agent.read] there is no document \"", path, "\"."));
  if (status.st_size > kMaxReadBytes)
    throw Error(ErrorCode::kExhausted, cat("[agent.read] \"", path, "\" is too long."));
  std::string text(static_cast<size_t>(status.st_size), '\0');
  const ssize_t n = ::read(file.get(), text.data(), text.size());
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}

Json lines_of(const std::string& text, int64_t first, int64_t count) {
  std::string out;
  int64_t line = 1;
  for (size_t begin = 0; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (line >= first && line < first + count) out += text.substr(begin, end - begin) + "\n";
    begin = end + 1;
  }
  return {{"lines", line - 1}, {"text", out}};
}

Tool read_tool(const BuiltinToolOptions& options) {
  Json schema = text_schema("document", "its path, as search gives it");
  schema["properties"]["line"] = {{"type", "integer"}, {"minimum", 1}, {"description", "the first to read"}};
  schema["properties"]["count"] = {{"type", "integer"}, {"minimum", 1}, {"maximum", 1000}};
  return {"read", "Lines of a document.", schema, [folder = options.documents](const Json& arguments) {
            return lines_of(read_beneath(folder, arguments["document"].get<std::string>()),
                            arguments.value("line", int64_t{1}), arguments.value("count", int64_t{100}));
          }};
}

Tool note_tool() {
  const auto notes = std::make_shared<Json>(Json::array());
  return {"note", "Keeps a text for later and gives all that were kept.", text_schema("text", "what to keep"),
          [notes](const Json& arguments) -> Json {
            notes->push_back(arguments["text"]);
            return {{"notes", *notes}};
          }};
}

}  // namespace

const std::vector<std::string>& builtin_tool_names() {
  static const std::vector<std::string> names = {"calculator", "python", "shell", "search", "read", "note"};
  return names;
}

ToolBox builtin_tools(const std::vector<std::string>& names, const BuiltinToolOptions& options) {
  ToolBox box;
  for (const std::string& name : names) {
    if ((name == "search" || name == "read") && options.documents.empty())
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[agent.tools] ", name, " needs a folder of documents. Give --documents DIR."));
    if (name == "calculator")
      box.add(calculator_tool());
    else if (name == "python" || name == "shell")
      box.add(code_tool(name, options));
    else if (name == "search")
      box.add(search_tool(options));
    else if (name == "read")
      box.add(read_tool(options));
    else if (name == "note")
      box.add(note_tool());
    else
      throw Error(ErrorCode::kInvalidArgument, cat("[agent.tools] there is no tool \"", name, "\"",
                                                   did_you_mean(name, builtin_tool_names()), "."));
  }
  return box;
}

}  // namespace hadal
