// The tools hadal has.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "hadal/agent/tool.h"

namespace hadal {

struct BuiltinToolOptions {
  std::filesystem::path documents;  // folder of search and read; "": neither
  double seconds = 10;              // of a python or shell call, on the clock and of CPU
  int64_t memory_bytes = 512 << 20;
};

// "calculator", "python", "shell", "search", "read", "note".
const std::vector<std::string>& builtin_tool_names();

// The named ones. python and shell run in the sandbox, each call in a new box. read gives lines of a file
// beneath the folder of documents and follows no link. note keeps texts as long as the tool lives. Throws
// invalid_argument for a name that is none or lacks its folder, unsupported if the sandbox cannot be had.
ToolBox builtin_tools(const std::vector<std::string>& names, const BuiltinToolOptions& options = {});

}  // namespace hadal
