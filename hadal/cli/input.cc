#include "hadal/cli/input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr size_t kMaxStreamBytes = size_t{1} << 32;  // as read_file

// All that a pipe or terminal gives; closes nothing.
std::string read_stream(int fd, const std::string& source) {
  std::string text;
  std::vector<char> buffer(1 << 16);
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got == 0) return text;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw Error(ErrorCode::kUnavailable,
                  cat("[cli.input] cannot read ", source, ": ", std::strerror(errno), "."));
    text.append(buffer.data(), static_cast<size_t>(got));
    if (text.size() > kMaxStreamBytes)
      throw Error(ErrorCode::kExhausted,
                  cat("[cli.input] ", source, " gives more than ", kMaxStreamBytes, " bytes."));
  }
}

std::string read_bytes(const std::string& path) {
  if (path == "-") return read_stream(STDIN_FILENO, "stdin");
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISFIFO(info.st_mode)) return read_file(path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);  // a shell's <(command)
  if (fd < 0)
    throw Error(ErrorCode::kUnavailable,
                cat("[cli.input] cannot read ", path, ": ", std::strerror(errno), "."));
  try {
    std::string text = read_stream(fd, path);
    ::close(fd);
    return text;
  } catch (...) {
    ::close(fd);
    throw;
  }
}

int32_t parse_id(std::string_view word, const std::string& place) {
  int32_t id = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
  if (error != std::errc() || end != word.data() + word.size() || id < 0)
    throw Error(ErrorCode::kCorrupt,
                cat("[cli.token_ids] ", place, ": got \"", word, "\", need a token id, 0..2147483647."));
  return id;
}

std::vector<int32_t> ids_of(const Json& row, const std::string& source) {
  std::vector<int32_t> ids;
  for (const Json& value : row) ids.push_back(parse_id(value.dump(), source));
  return ids;
}

}  // namespace

void require_utf8(const std::string& text, const std::string& source) {
  size_t bad = 0;
  if (!is_utf8(text, &bad))
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.input] ", source, ": byte ", bad,
                    " is not UTF-8. Convert the text to UTF-8, e.g. with iconv."));
}

std::string read_text(const std::string& path) {
  std::string text = read_bytes(path);
  require_utf8(text, path == "-" ? "stdin" : path);
  return text;
}

std::vector<std::vector<int32_t>> read_token_ids(const std::string& path) {
  return parse_token_ids(read_bytes(path), path == "-" ? "stdin" : path);
}

std::vector<std::vector<int32_t>> parse_token_ids(const std::string& text, const std::string& source) {
  std::vector<std::vector<int32_t>> rows;
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && (text[first] == '[' || text[first] == '{')) {
    Json json = parse_json(text, source);
    if (json.is_object()) {
      if (!json.contains("ids") || !json["ids"].is_array())
        throw Error(ErrorCode::kCorrupt,
                    cat("[cli.token_ids] ", source, ": \"ids\" is no list: need {\"ids\": [1, 2]}."));
      json = Json(json["ids"]);
    }
    if (!json.empty() && json[0].is_array()) {
      for (const Json& row : json) rows.push_back(ids_of(row, source));
    } else {
      rows.push_back(ids_of(json, source));
    }
    std::erase_if(rows, [](const auto& row) { return row.empty(); });
  } else {
    std::istringstream lines(text);
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
      for (char& c : line)
        if (c == ',') c = ' ';
      std::istringstream words(line);
      std::vector<int32_t> row;
      for (std::string word; words >> word;) row.push_back(parse_id(word, cat(source, ": line ", number)));
      if (!row.empty()) rows.push_back(std::move(row));
    }
  }
  if (rows.empty())
    throw Error(ErrorCode::kInvalidArgument, cat("[cli.token_ids] ", source, ": no token ids."));
  return rows;
}

std::vector<int64_t> token_byte_lengths(const Tokenizer& tokenizer, int64_t vocab_size) {
  std::vector<int64_t> bytes(static_cast<size_t>(vocab_size));
  for (int32_t id = 0; id < vocab_size; ++id)
    if (tokenizer.is_token(id) && !tokenizer.is_special(id))
      bytes[static_cast<size_t>(id)] = static_cast<int64_t>(tokenizer.token_bytes(id).size());
  return bytes;
}

}  // namespace hadal
