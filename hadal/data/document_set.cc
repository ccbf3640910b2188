#include "hadal/data/document_set.h"

#include <algorithm>
#include <cmath>

#include "hadal/base/text.h"
#include "hadal/data/manifest.h"
#include "hadal/error.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

std::vector<TokenFile> open_all(const std::vector<fs::path>& paths) {
  std::vector<TokenFile> files;
  for (const fs::path& path : paths) files.push_back(TokenFile::open(path));
  return files;
}

// A shard of the manifest must be the one that was written.
std::vector<TokenFile> open_shards(const fs::path& folder, const Manifest& manifest,
                                   const ManifestPart& part) {
  std::vector<TokenFile> files;
  for (const ManifestShard& shard : part.shards) {
    files.push_back(TokenFile::open(folder / shard.file));
    const auto& header = files.back().header();
    if (!header || hex(header->content) != shard.sha256 || header->tokens != shard.tokens ||
        header->documents != shard.documents || header->vocab_size != manifest.vocab_size ||
        header->eos_id != manifest.eos_id)
      throw Error(ErrorCode::kCorrupt,
                  cat("[data.source] ", (folder / shard.file).string(), ": byte 0: not the shard that ",
                      "manifest.json names: its header differs. Build the data set again."));
  }
  return files;
}

OpenSource open_built(const fs::path& manifest_path) {
  const fs::path folder = manifest_path.parent_path();
  const Manifest manifest = read_manifest(manifest_path);
  OpenSource source;
  source.format = "hadal";
  source.train = DocumentSet(open_shards(folder, manifest, manifest.train));
  source.held_out = DocumentSet(open_shards(folder, manifest, manifest.held_out));
  source.vocab_size = manifest.vocab_size;
  source.eos_id = manifest.eos_id;
  source.fim = manifest.fim;
  source.tokenizer_sha256 = manifest.tokenizer_sha256;
  if (fs::exists(folder / "tokenizer.json")) source.tokenizer = folder;
  source.has_documents = true;
  return source;
}

// Where the last `held_out_share` of `all` tokens starts.
int64_t cut_at(int64_t all, double held_out_share) {
  return all - static_cast<int64_t>(std::floor(held_out_share * static_cast<double>(all)));
}

OpenSource open_files(const fs::path& path) {
  const TokenFiles paths = list_token_files(path);
  OpenSource source;
  std::vector<TokenFile> train = open_all(paths.train), held_out = open_all(paths.held_out);
  const TokenFile& first = train.empty() ? held_out.front() : train.front();
  for (const auto* files : {&train, &held_out})
    for (const TokenFile& file : *files)
      if (file.format() != first.format() || file.vocab_size() != first.vocab_size())
        throw Error(
            ErrorCode::kInvalidArgument,
            cat("[data.source] ", file.path().string(), " is ", file.format(), ", ", first.path().string(),
                " is ", first.format(), ": one source needs one kind. Give them as two sources."));
  source.format = first.format();
  source.vocab_size = first.vocab_size();
  source.has_documents = source.format == "hadal" || source.format == "Megatron";
  if (first.header()) {
    source.eos_id = first.header()->eos_id;
    if (first.header()->tokenizer != Sha256Digest{}) source.tokenizer_sha256 = hex(first.header()->tokenizer);
  }
  source.train = DocumentSet(std::move(train));
  source.held_out = DocumentSet(std::move(held_out));
  return source;
}

}  // namespace

DocumentSet::DocumentSet(std::vector<TokenFile> files) : files_(std::move(files)) {
  documents_before_ = tokens_before_ = {0};
  for (const TokenFile& file : files_) {
    documents_before_.push_back(documents_before_.back() + file.num_documents());
    tokens_before_.push_back(tokens_before_.back() + file.num_tokens());
  }
  last_document_ = documents_before_.back();
  last_token_ = tokens_before_.back();
}

DocumentSet::DocumentSet(std::vector<TokenFile> files, int64_t first_token, int64_t last_token)
    : DocumentSet(std::move(files)) {
  first_token_ = first_token, last_token_ = last_token;
  first_document_ = first_token < tokens_before_.back() ? document_of(first_token) : last_document_;
  if (last_token == first_token)
    last_document_ = first_document_;
  else if (last_token < tokens_before_.back())
    last_document_ = document_of(last_token - 1) + 1;
}

DocumentSet::Place DocumentSet::place(int64_t document) const {
  const auto after = std::upper_bound(documents_before_.begin(), documents_before_.end() - 1, document);
  const size_t file = static_cast<size_t>(after - documents_before_.begin()) - 1;
  return {file, document - documents_before_[file]};
}

int64_t DocumentSet::start_of(int64_t document) const {
  if (document == documents_before_.back()) return tokens_before_.back();
  const auto [file, inside] = place(document);
  return tokens_before_[file] + files_[file].document_begin(inside);
}

int64_t DocumentSet::document_of(int64_t token) const {
  int64_t low = 0, high = documents_before_.back();
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (start_of(middle) <= token ? low : high) = middle;
  }
  return low;
}

int64_t DocumentSet::tokens_before(int64_t document) const {
  if (files_.empty()) return 0;
  return std::clamp(start_of(first_document_ + document), first_token_, last_token_) - first_token_;
}

DocumentTokens DocumentSet::at(int64_t document) const {
  const auto [index, inside] = place(first_document_ + document);
  const TokenFile& file = files_[index];
  const int64_t base = tokens_before_[index];
  const int64_t begin = std::max(base + file.document_begin(inside), first_token_);
  const int64_t end = std::min(base + file.document_begin(inside + 1), last_token_);
  return {&file, begin - base, end - begin};
}

OpenSource open_source(std::shared_ptr<const std::vector<int32_t>> ids, const std::string& name,
                       double held_out_share) {
  const auto all = static_cast<int64_t>(ids->size()), cut = cut_at(all, held_out_share);
  const auto part = [&](int64_t first, int64_t last) {
    std::vector<TokenFile> files;
    files.push_back(TokenFile::in_memory(ids, name));
    return DocumentSet(std::move(files), first, last);
  };
  OpenSource source;
  source.format = "text";
  source.train = part(0, cut), source.held_out = part(cut, all);
  return source;
}

OpenSource open_source(const fs::path& path, double held_out_share) {
  fs::path manifest = path.filename() == "manifest.json" ? path : path / "manifest.json";
  if (path.filename() == "manifest.json" && !path.has_parent_path()) manifest = fs::path(".") / path;
  const bool built = fs::is_regular_file(manifest);
  OpenSource source = built ? open_built(manifest) : open_files(path);
  if (held_out_share == 0 || source.held_out.size() > 0) return source;
  const int64_t all = source.train.tokens(), cut = cut_at(all, held_out_share);
  std::vector<fs::path> paths;
  for (const TokenFile& file : source.train.files()) paths.push_back(file.path());
  source.train = DocumentSet(open_all(paths), 0, cut);
  source.held_out = DocumentSet(open_all(paths), cut, all);
  return source;
}

}  // namespace hadal
