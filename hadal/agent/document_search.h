// Passages of a folder of documents, found by words: BM25.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace hadal {

struct Passage {
  std::string document;    // path within the folder
  int64_t first_line = 0;  // from 1
  std::string text;
};

class DocumentSearch {
 public:
  // Plain text, Markdown and the like (.txt .md .rst .jsonl .csv .html .tex) beneath the folder, links not
  // followed, cut into passages at blank lines, each of at most 1500 bytes or one line. Throws not_found,
  // exhausted (more than 256 MiB).
  explicit DocumentSearch(const std::filesystem::path& folder);

  struct Hit {
    const Passage* passage = nullptr;
    double score = 0;
  };
  // The best `count` passages that hold a word of the query, best first, ties by place. BM25 with k1 = 1.2, b
  // = 0.75.
  std::vector<Hit> find(std::string_view query, size_t count) const;
  size_t num_passages() const { return passages_.size(); }

 private:
  void add_document(const std::string& name, std::string_view text);
  void add_passage(Passage passage);

  struct Occurrence {
    size_t passage = 0;
    int64_t count = 0;
  };
  std::vector<Passage> passages_;
  std::vector<int64_t> lengths_;  // words of each
  double mean_length_ = 0;
  std::unordered_map<std::string, std::vector<Occurrence>> index_;
};

// Lower-case runs of letters and digits; bytes of other alphabets count as letters.
std::vector<std::string> words_of_text(std::string_view text);

}  // namespace hadal
