#include "hadal/cli/output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

[[noreturn]] void fail(int error) {
  if (error == EPIPE) throw ReaderGone{};
  throw Error(error == ENOSPC ? ErrorCode::kExhausted : ErrorCode::kUnavailable,
              cat("[cli.output] cannot write to stdout: ", std::strerror(error), "."));
}

}  // namespace

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail(errno);
}

void flush_output() {
  if (std::fflush(stdout) != 0) fail(errno);
}

std::string one_line(std::string_view text) {
  std::string line;
  for (const char c : text)
    line += c == '\n' ? ' ' : static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

}  // namespace hadal
