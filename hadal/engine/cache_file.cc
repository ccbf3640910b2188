// The reusable pages of the cache as a file:
//   "HADALKV\n"  uint64 size of the header  JSON header
//   per page: int32 parent (index in the file, before it; -1: none), int32 has MTP rows, int32 tokens [64]
//   per page, per layer: kPageTokens rows as they lie in memory (latent_pages.h, kPageLayout)
//   SHA-256 of all before
// Little-endian.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "hadal/base/check.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/sha256.h"
#include "hadal/base/text.h"
#include "hadal/engine/engine_state.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr std::string_view kMagic = "HADALKV\n";
constexpr size_t kRecordInts = 2 + static_cast<size_t>(kPageTokens), kDigestBytes = sizeof(Sha256Digest);

// Of a matrix, what tells one training from another: its form and bytes at even distances.
void add_matrix(Sha256& hash, const WeightView& w) {
  constexpr int64_t kPieces = 64, kPiece = 64;
  hash.update(cat(static_cast<int>(w.format), " ", w.N, " ", w.K, ";"));
  const int64_t size = w.N * row_bytes(w.format, w.K), pieces = std::min(kPieces, size / kPiece);
  for (int64_t i = 0; i < pieces; ++i)
    hash.update(static_cast<const char*>(w.data) + (size - kPiece) * i / std::max<int64_t>(1, pieces - 1),
                static_cast<size_t>(kPiece));
}

void add_floats(Sha256& hash, const float* x, int64_t n) {
  if (x) hash.update(reinterpret_cast<const char*>(x), static_cast<size_t>(n) * sizeof(float));
}

void add_mlp(Sha256& hash, const MlpView& mlp) {
  for (const WeightView* w : {&mlp.gate, &mlp.up, &mlp.down}) add_matrix(hash, *w);
}

void add_layer(Sha256& hash, const LayerView& layer, const ModelConfig& config) {
  const int64_t D = config.width;
  for (const float* norm : {layer.attention_norm, layer.ffn_norm, layer.mtp.embedding_norm,
                            layer.mtp.hidden_norm, layer.mtp.final_norm})
    add_floats(hash, norm, D);
  const MlaView& mla = layer.mla;
  add_floats(hash, mla.q_norm, config.mla.query_latent);
  add_floats(hash, mla.kv_norm, config.mla.kv_latent);
  for (const WeightView* w : {&mla.query, &mla.q_down, &mla.q_up, &mla.kv_down, &mla.kv_up, &mla.out,
                              &layer.moe.router, &layer.mtp.project})
    add_matrix(hash, *w);
  if (config.mla.indexer) {
    for (const WeightView* w : {&mla.indexer.query, &mla.indexer.key, &mla.indexer.weights})
      add_matrix(hash, *w);
    add_floats(hash, mla.indexer.key_norm, config.mla.indexer->head_dim);
    add_floats(hash, mla.indexer.key_bias, config.mla.indexer->head_dim);
  }
  add_floats(hash, layer.moe.balance_bias, static_cast<int64_t>(layer.moe.experts.size()));
  add_mlp(hash, layer.mlp);
  add_mlp(hash, layer.moe.shared);
  for (const MlpView& expert : layer.moe.experts) add_mlp(hash, expert);
}

// The weights and the configuration.
std::string fingerprint(const NetworkWeights& weights) {
  Sha256 hash;
  hash.update(config_json(weights.config));
  for (const WeightView* w : {&weights.embedding, &weights.head}) add_matrix(hash, *w);
  add_floats(hash, weights.final_norm, weights.config.width);
  for (const LayerView& layer : weights.layers) add_layer(hash, layer, weights.config);
  return hex(hash.finish());
}

[[noreturn]] void refuse_other(const std::filesystem::path& path, const std::string& what,
                               const std::string& got, const std::string& need) {
  throw Error(ErrorCode::kInvalidArgument,
              cat("[engine.load_cache] ", path.string(), " was saved with another ", what, ": got ", got,
                  ", need ", need, ". Use it with the model and settings that made it, or delete it."));
}

[[noreturn]] void refuse_corrupt(const std::filesystem::path& path, const std::string& why) {
  throw Error(ErrorCode::kCorrupt,
              cat("[engine.load_cache] ", path.string(), " ", why, ". Delete it: it is only a cache."));
}

// What must be equal, in the order in which it is worth naming.
struct Made {
  const char *key, *what;
};
constexpr Made kMade[] = {{"version", "version of the file"}, {"page_layout", "layout of pages"},
                          {"page_tokens", "page size"},       {"model", "model"},
                          {"cache_format", "cache format"},   {"row_bytes", "row size"},
                          {"isa", "instruction set"}};

struct CacheFile {
  MappedFile map;
  Json header;
  int64_t layers = 0, pages = 0;
  const std::byte *records = nullptr, *data = nullptr;

  std::vector<int32_t> record(int64_t page) const {
    std::vector<int32_t> ints(kRecordInts);
    std::memcpy(ints.data(), records + page * static_cast<int64_t>(kRecordInts * 4), kRecordInts * 4);
    return ints;
  }
};

// Checks everything that does not depend on the model's vocabulary.
CacheFile open_cache_file(const std::filesystem::path& path, const Json& ours) {
  CacheFile file{.map = MappedFile(path), .header = {}};
  const std::string_view text = file.map.text();
  uint64_t header_size = 0;
  if (text.size() < kMagic.size() + 8 + kDigestBytes || text.substr(0, kMagic.size()) != kMagic)
    refuse_corrupt(path, "is no cache that hadal saved, or cut short");
  std::memcpy(&header_size, text.data() + kMagic.size(), 8);
  const size_t start = kMagic.size() + 8;
  if (header_size > text.size() - start - kDigestBytes) refuse_corrupt(path, "is cut short");
  try {
    file.header = parse_json(text.substr(start, header_size), path.string());
  } catch (const Error&) {
    refuse_corrupt(path, "has a damaged header");
  }
  try {
    for (const Made& made : kMade) {
      const Json &got = file.header.at(made.key), &need = ours.at(made.key);
      if (got != need) refuse_other(path, made.what, got.dump(), need.dump());
    }
    file.layers = file.header.at("layers").get<int64_t>(),
    file.pages = file.header.at("pages").get<int64_t>();
  } catch (const Json::exception&) {
    refuse_corrupt(path, "has a damaged header");
  }
  const int64_t page = file.layers * kPageTokens * ours.at("row_bytes").get<int64_t>();
  const uint64_t left = text.size() - start - header_size - kDigestBytes;
  const uint64_t per_page = kRecordInts * 4 + static_cast<uint64_t>(page);
  if (file.layers < 1 || file.layers > 1 << 20 || file.pages < 0 ||
      left / per_page != static_cast<uint64_t>(file.pages) || left % per_page != 0)
    refuse_corrupt(
        path, cat("is cut short: ", file.pages, " pages are announced, ", left / per_page, " are there"));
  Sha256 hash;
  hash.update(text.substr(0, text.size() - kDigestBytes));
  const Sha256Digest digest = hash.finish();
  if (std::memcmp(digest.data(), text.data() + text.size() - kDigestBytes, kDigestBytes) != 0)
    refuse_corrupt(path, "is damaged: its checksum differs");
  file.records = file.map.bytes().data() + start + header_size;
  file.data = file.records + file.pages * static_cast<int64_t>(kRecordInts * 4);
  return file;
}

void check_records(const CacheFile& file, int64_t vocab_size) {
  for (int64_t i = 0; i < file.pages; ++i) {
    const std::vector<int32_t> record = file.record(i);
    bool good = record[0] >= -1 && record[0] < i;
    for (size_t t = 2; t < kRecordInts; ++t) good &= record[t] >= 0 && record[t] < vocab_size;
    if (!good) refuse_corrupt(file.map.path(), cat("names a page or token that cannot be, in page ", i));
  }
}

}  // namespace

Json Engine::State::cache_header(int64_t pages) const {
  return {{"version", 1},
          {"page_layout", kPageLayout},
          {"page_tokens", kPageTokens},
          {"model", fingerprint(network.weights())},
          {"cache_format", name(format)},
          {"row_bytes", storage.row_bytes()},
          {"isa", infer_kernels().isa},
          {"layers", storage.layers()},
          {"pages", pages}};
}

int64_t Engine::save_cache(const std::filesystem::path& path) const {
  const State& s = *state_;
  const std::vector<PageTable::Published> pages = s.table.published();
  AtomicFile file(path);
  Sha256 hash;
  const auto write = [&](const void* data, size_t size) {
    file.write(data, size);
    hash.update(data, size);
  };
  const std::string header = s.cache_header(std::ssize(pages)).dump();
  const uint64_t header_size = header.size();
  write(kMagic.data(), kMagic.size()), write(&header_size, 8), write(header.data(), header.size());
  std::unordered_map<int32_t, int32_t> index = {{-1, -1}};  // of a page in the file
  for (const PageTable::Published& p : pages) {
    const int32_t head[2] = {index.at(p.parent), s.page_has_mtp[static_cast<size_t>(p.page)]};
    write(head, sizeof head), write(p.tokens.data(), p.tokens.size_bytes());
    index.emplace(p.page, static_cast<int32_t>(index.size()) - 1);
  }
  const auto bytes = static_cast<size_t>(kPageTokens * s.storage.row_bytes());
  for (const PageTable::Published& p : pages)
    for (int64_t layer = 0; layer < s.storage.layers(); ++layer) write(s.storage.page(layer, p.page), bytes);
  const Sha256Digest digest = hash.finish();
  file.write(digest.data(), digest.size());
  file.commit();
  return std::ssize(pages) * kPageTokens;
}

int64_t Engine::load_cache(const std::filesystem::path& path) {
  State& s = *state_;
  if (!s.table.reuses_prefixes())
    throw Error(ErrorCode::kInvalidArgument,
                "[engine.load_cache] reuse_prefixes is off: nothing of a file would be found. Switch it on.");
  const CacheFile file = open_cache_file(path, s.cache_header(0));
  check_records(file, s.model.vocab_size);
  if (file.layers < s.model.num_layers) refuse_corrupt(path, "lacks layers");
  const int64_t bytes = kPageTokens * s.storage.row_bytes(), layers = std::min(file.layers, s.layers);
  std::vector<int32_t> page_of(static_cast<size_t>(file.pages), -1);
  int64_t taken = 0;
  for (int64_t i = 0; i < file.pages; ++i) {
    const std::vector<int32_t> record = file.record(i);
    const int32_t parent = record[0] < 0 ? -1 : page_of[static_cast<size_t>(record[0])];
    if (record[0] >= 0 && parent < 0) continue;  // there was no room for it
    const auto restored = s.table.restore(parent, std::span(record).subspan(2));
    if (!restored) continue;
    page_of[static_cast<size_t>(i)] = restored->page;
    if (!restored->is_new) continue;
    for (int64_t layer = 0; layer < layers; ++layer)
      std::memcpy(s.storage.page(layer, restored->page), file.data + (i * file.layers + layer) * bytes,
                  static_cast<size_t>(bytes));
    s.page_has_mtp[static_cast<size_t>(restored->page)] = record[1] != 0 && layers == s.layers;
    taken += kPageTokens;
  }
  return taken;
}

}  // namespace hadal
