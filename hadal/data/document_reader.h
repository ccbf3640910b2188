// Documents in text and JSONL files, read in pieces: a piece is cut at document borders, so that several
// threads may take them apart. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

enum class DocumentSplit {
  kFile,       // a file is a document
  kBlankLine,  // lines that are empty but for blanks separate documents
  kLine,       // every line that is not empty
  kJsonl,      // every line is a JSON object with the text in a field
};

// "file", "blank-line", "line", "jsonl". Throws invalid_argument with the list.
DocumentSplit parse_document_split(std::string_view name);

// Whole documents of a file.
struct TextPiece {
  std::string_view text;
  int64_t at = 0;  // byte of `text` in the file
};

// Cuts `text`, a whole file, into pieces of about `piece_bytes` (kFile: one piece), at document borders. A
// byte order mark at its start is left out.
class PieceCutter {
 public:
  PieceCutter(std::string_view text, DocumentSplit split, int64_t piece_bytes = 1 << 20);
  bool next(TextPiece& piece);

 private:
  std::string_view text_;
  DocumentSplit split_;
  size_t piece_bytes_, at_ = 0;
};

// Calls take(text, byte in the file) for each document of the piece that is not empty. Throws corrupt, naming
// `path` and byte, for text that is not UTF-8, JSON that is wrong, a field that is missing or no string.
void for_each_document(const TextPiece& piece, DocumentSplit split, std::string_view field,
                       const std::filesystem::path& path,
                       const std::function<void(std::string_view, int64_t)>& take);

}  // namespace hadal
