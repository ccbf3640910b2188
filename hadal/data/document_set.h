// The documents of one source: of one file or many, those to train on or those held out. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "hadal/data/token_file.h"

namespace hadal {

// Tokens [begin, begin + count) of one file.
struct DocumentTokens {
  const TokenFile* file = nullptr;
  int64_t begin = 0, count = 0;
};

// Documents numbered through all files. A window of the tokens may be cut out: [first, last) counted through
// all files; documents at its ends are cut.
class DocumentSet {
 public:
  DocumentSet() = default;
  explicit DocumentSet(std::vector<TokenFile> files);
  DocumentSet(std::vector<TokenFile> files, int64_t first_token, int64_t last_token);

  int64_t size() const { return last_document_ - first_document_; }
  int64_t tokens() const { return last_token_ - first_token_; }
  DocumentTokens at(int64_t document) const;  // O(log files)
  // Tokens before document `document`; document = size(): all.
  int64_t tokens_before(int64_t document) const;
  const std::vector<TokenFile>& files() const { return files_; }

 private:
  struct Place {
    size_t file;
    int64_t document;
  };
  Place place(int64_t document) const;       // numbered through all files, cut or not
  int64_t start_of(int64_t document) const;  // token, through all files
  int64_t document_of(int64_t token) const;  // the last that starts at or before; token < all

  std::vector<TokenFile> files_;
  std::vector<int64_t> documents_before_, tokens_before_;  // [files + 1]
  int64_t first_document_ = 0, last_document_ = 0, first_token_ = 0, last_token_ = 0;
};

// Token ids of fill-in-the-middle.
struct FimIds {
  int32_t begin = -1, hole = -1, end = -1;
  bool known() const { return begin >= 0; }
};

struct OpenSource {
  std::string format;
  DocumentSet train, held_out;
  int64_t vocab_size = 0;  // 0: the format does not say
  int32_t eos_id = -1;     // appended to each document; -1: nothing is
  FimIds fim;
  std::filesystem::path tokenizer;  // folder with tokenizer.json; empty: none
  std::string tokenizer_sha256;     // "": unknown
  bool has_documents = false;       // false: a file is one document
};

// Tokens in memory, one document; nothing is appended to it. `name`: for messages.
OpenSource open_source(std::shared_ptr<const std::vector<int32_t>> ids, const std::string& name,
                       double held_out_share);

// `held_out_share` of the tokens, the last, is cut off where the source has no held-out part of its own.
OpenSource open_source(const std::filesystem::path& path, double held_out_share);

}  // namespace hadal
