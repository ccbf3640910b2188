#include "hadal/agent/document_search.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <set>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPassageBytes = 1500, kMaxBytes = size_t{256} << 20;
constexpr double kTermWeight = 1.2, kLengthWeight = 0.75;  // k1 and b of BM25

bool is_document(const fs::path& path) {
  constexpr std::array<std::string_view, 8> kinds = {".txt", ".md",   ".rst", ".jsonl",
                                                     ".csv", ".html", ".tex", ".json"};
  return std::find(kinds.begin(), kinds.end(), path.extension().string()) != kinds.end();
}

}  // namespace

std::vector<std::string> words_of_text(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (const unsigned char c : text) {
    if (std::isalnum(c) || c >= 0x80) {
      word += static_cast<char>(std::tolower(c));
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

DocumentSearch::DocumentSearch(const fs::path& folder) {
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::kNotFound,
                cat("[agent.search] ", folder.string(), " is no folder. Give one with documents."));
  std::set<fs::path> paths;  // in an order that does not depend on the file system
  for (const auto& entry :
       fs::recursive_directory_iterator(folder, fs::directory_options::skip_permission_denied))
    if (entry.is_regular_file() && !entry.is_symlink() && is_document(entry.path()))
      paths.insert(entry.path());
  size_t bytes = 0;
  for (const fs::path& path : paths) {
    const std::string text = read_file(path, kMaxBytes);
    if ((bytes += text.size()) > kMaxBytes)
      throw Error(ErrorCode::kExhausted,
                  cat("[agent.search] ", folder.string(), " holds more than 256 MiB of documents."));
    add_document(path.lexically_relative(folder).string(), text);
  }
  for (const int64_t length : lengths_)
    mean_length_ += static_cast<double>(length) / static_cast<double>(lengths_.size());
}

void DocumentSearch::add_document(const std::string& name, std::string_view text) {
  Passage passage{.document = name};
  int64_t line_number = 0;
  const auto finish = [&] {
    if (!passage.text.empty()) add_passage(passage);
    passage.text.clear();
  };
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    ++line_number;
    const bool blank = line.find_first_not_of(" \t\r") == std::string_view::npos;
    if (blank || passage.text.size() + line.size() > kPassageBytes) finish();
    if (blank) continue;
    if (passage.text.empty()) passage.first_line = line_number;
    passage.text += std::string(line) + "\n";
  }
  finish();
}

void DocumentSearch::add_passage(Passage passage) {
  std::unordered_map<std::string, int64_t> counts;
  int64_t length = 0;
  for (std::string& word : words_of_text(passage.text)) ++counts[std::move(word)], ++length;
  for (const auto& [word, count] : counts) index_[word].push_back({passages_.size(), count});
  passages_.push_back(std::move(passage));
  lengths_.push_back(length);
}

std::vector<DocumentSearch::Hit> DocumentSearch::find(std::string_view query, size_t count) const {
  std::unordered_map<size_t, double> scores;
  const std::vector<std::string> words = words_of_text(query);
  for (const std::string& word : std::set<std::string>(words.begin(), words.end())) {
    const auto found = index_.find(word);
    if (found == index_.end()) continue;
    const auto all = static_cast<double>(passages_.size()), with = static_cast<double>(found->second.size());
    const double rarity = std::log(1 + (all - with + 0.5) / (with + 0.5));
    for (const Occurrence& one : found->second) {
      const double times = static_cast<double>(one.count);
      const double length = static_cast<double>(lengths_[one.passage]) / mean_length_;
      scores[one.passage] += rarity * times * (kTermWeight + 1) /
                             (times + kTermWeight * (1 - kLengthWeight + kLengthWeight * length));
    }
  }
  std::vector<std::pair<double, size_t>> order;
  for (const auto& [passage, score] : scores) order.emplace_back(-score, passage);
  std::sort(order.begin(), order.end());
  std::vector<Hit> hits;
  for (size_t i = 0; i < std::min(count, order.size()); ++i)
    hits.push_back({&passages_[order[i].second], -order[i].first});
  return hits;
}

}  // namespace hadal
