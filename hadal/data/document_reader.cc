#include "hadal/data/document_reader.h"

#include <simdjson.h>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

[[noreturn]] void corrupt(const std::filesystem::path& path, int64_t byte, const std::string& what) {
  throw Error(ErrorCode::kCorrupt, cat("[data.build] ", path.string(), ": byte ", byte, ": ", what));
}

void require_utf8(std::string_view text, int64_t at, const std::filesystem::path& path) {
  size_t bad = 0;
  if (!is_utf8(text, &bad))
    corrupt(path, at + static_cast<int64_t>(bad), "not UTF-8. Convert the file, or take the line out.");
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

// The line that starts at `at`, with its line break.
std::string_view line_at(std::string_view text, size_t at) {
  const size_t end = text.find('\n', at);
  return text.substr(at, end == std::string_view::npos ? end : end + 1 - at);
}

std::string_view without_line_break(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

struct JsonLines {
  simdjson::dom::parser parser;
  std::string_view field;
  const std::filesystem::path& path;

  std::string_view text_of(std::string_view line, int64_t at) {
    simdjson::dom::element root;
    if (const auto error = parser.parse(line.data(), line.size()).get(root))
      corrupt(path, at, cat("this line is not JSON: ", simdjson::error_message(error), "."));
    simdjson::dom::object object;
    if (root.get(object)) corrupt(path, at, "this line is not a JSON object.");
    simdjson::dom::element value;
    if (object.at_key(field).get(value))
      corrupt(path, at, cat("this line has no field \"", field, "\". Name the one with the text: --field."));
    std::string_view text;
    if (value.get(text)) corrupt(path, at, cat("the field \"", field, "\" is not a string."));
    return text;
  }
};

}  // namespace

DocumentSplit parse_document_split(std::string_view name) {
  if (name == "file") return DocumentSplit::kFile;
  if (name == "blank-line") return DocumentSplit::kBlankLine;
  if (name == "line") return DocumentSplit::kLine;
  if (name == "jsonl") return DocumentSplit::kJsonl;
  throw Error(ErrorCode::kInvalidArgument,
              cat("[data.build] split: got \"", name, "\", need file, blank-line, line or jsonl."));
}

PieceCutter::PieceCutter(std::string_view text, DocumentSplit split, int64_t piece_bytes)
    : text_(text), split_(split), piece_bytes_(static_cast<size_t>(piece_bytes)) {
  if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
}

bool PieceCutter::next(TextPiece& piece) {
  if (at_ >= text_.size()) return false;
  size_t end = text_.size();
  if (split_ != DocumentSplit::kFile && text_.size() - at_ > piece_bytes_) {
    end = text_.find('\n', at_ + piece_bytes_);
    end = end == std::string_view::npos ? text_.size() : end + 1;
    if (split_ == DocumentSplit::kBlankLine)
      while (end < text_.size()) {
        const std::string_view line = line_at(text_, end);
        end += line.size();
        if (is_blank(line)) break;
      }
  }
  piece = {text_.substr(at_, end - at_), static_cast<int64_t>(at_)};
  at_ = end;
  return true;
}

void for_each_document(const TextPiece& piece, DocumentSplit split, std::string_view field,
                       const std::filesystem::path& path,
                       const std::function<void(std::string_view, int64_t)>& take) {
  const std::string_view text = piece.text;
  if (split == DocumentSplit::kFile) {
    require_utf8(text, piece.at, path);
    if (!text.empty()) take(text, piece.at);
    return;
  }
  JsonLines json{simdjson::dom::parser(), field, path};
  size_t start = 0;  // of the document, for blank lines
  const auto give = [&](std::string_view document, size_t at) {
    const int64_t byte = piece.at + static_cast<int64_t>(at);
    require_utf8(document, byte, path);
    if (split == DocumentSplit::kJsonl) document = json.text_of(document, byte);
    if (!document.empty()) take(document, byte);
  };
  for (size_t at = 0; at < text.size();) {
    const std::string_view line = line_at(text, at);
    const bool blank = is_blank(line);
    if (split == DocumentSplit::kBlankLine) {
      if (blank && start < at) give(without_line_break(text.substr(start, at - start)), start);
      if (blank) start = at + line.size();
    } else if (!blank) {
      give(without_line_break(line), at);
    }
    at += line.size();
  }
  if (split == DocumentSplit::kBlankLine && start < text.size())
    give(without_line_break(text.substr(start)), start);
}

}  // namespace hadal
