#include "hadal/data/token_file.h"

#include <algorithm>
#include <cstring>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

constexpr int32_t kLlmcGpt2 = 20240520, kLlmcLlama3 = 20240801;  // first word of an llm.c shard
constexpr int64_t kLlmcHeaderBytes = 1024;                       // 256 32-bit words
constexpr std::string_view kMegatronMagic{"MMIDIDX\0\0", 9};
constexpr int64_t kMaxId = INT32_MAX - 1;

[[noreturn]] void corrupt(const fs::path& path, int64_t byte, const std::string& what) {
  throw Error(ErrorCode::kCorrupt, cat("[data.tokens] ", path.string(), ": byte ", byte, ": ", what));
}

template <class T>
T load(std::span<const std::byte> bytes, int64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

// Bytes per token of Megatron's dtype codes; 0: not integers that hold ids.
int32_t megatron_width(uint8_t code) {
  constexpr int32_t kWidth[] = {0, 1, 1, 2, 4, 8, 0, 0, 2};  // -, u8, i8, i16, i32, i64, f64, f32, u16
  return code < std::size(kWidth) ? kWidth[code] : 0;
}

// Reads fields of an index one after the other; each must fit.
struct IndexReader {
  std::span<const std::byte> bytes;
  const fs::path& path;
  int64_t at = 0;

  int64_t skip(int64_t count, int64_t size, const char* what) {
    const int64_t left = static_cast<int64_t>(bytes.size()) - at;
    if (count < 0 || count > left / size)
      corrupt(
          path, at,
          cat("the file ends in ", what, ": need ", count, " of ", size, " bytes, have ", left, " bytes."));
    const int64_t start = at;
    at += count * size;
    return start;
  }
};

}  // namespace

TokenFile TokenFile::open(const fs::path& path) {
  fs::path index = path;
  index.replace_extension(".idx");
  if (path.extension() == ".idx") {
    fs::path tokens = path;
    TokenFile file(tokens.replace_extension(".bin"));
    file.read_megatron(index);
    return file;
  }
  TokenFile file(path);
  const auto bytes = file.bytes_;
  const int32_t first = bytes.size() >= 4 ? load<int32_t>(bytes, 0) : 0;
  if (starts_with(bytes, kShardMagic) || path.extension() == ".tokens")
    file.read_hadal();
  else if (first == kLlmcGpt2 || first == kLlmcLlama3)
    file.read_llm_c();
  else if (path.extension() == ".bin" && fs::exists(index))
    file.read_megatron(index);
  else if (path.extension() == ".bin")
    file.read_nanogpt();
  else
    throw Error(ErrorCode::kUnsupported,
                cat("[data.tokens] ", path.string(), ": no file of tokens that hadal knows. Need a hadal or ",
                    "llm.c shard, a nanoGPT .bin or a Megatron .idx; for text, JSONL: hadal data build; ",
                    "Parquet: convert to JSONL first."));
  return file;
}

TokenFile TokenFile::in_memory(std::shared_ptr<const std::vector<int32_t>> ids, fs::path path) {
  TokenFile file;
  file.path_ = std::move(path), file.ids_ = std::move(ids);
  file.bytes_ = std::as_bytes(std::span(*file.ids_));
  file.format_ = "text";
  file.num_tokens_ = static_cast<int64_t>(file.ids_->size()), file.width_ = 4;
  return file;
}

void TokenFile::read_hadal() {
  format_ = "hadal";
  header_ = read_shard_header(bytes_, path());
  num_documents_ = header_->documents, num_tokens_ = header_->tokens, vocab_size_ = header_->vocab_size;
  width_ = header_->token_bytes;
  borders_at_ = kShardHeaderBytes;
  tokens_at_ = kShardHeaderBytes + 8 * (num_documents_ + 1);
}

void TokenFile::read_llm_c() {
  format_ = "llm.c";
  const auto bytes = bytes_;
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (size < kLlmcHeaderBytes)
    corrupt(path(), size, cat("the file ends in the header: need ", kLlmcHeaderBytes, " bytes."));
  const bool gpt2 = load<int32_t>(bytes, 0) == kLlmcGpt2;
  const int32_t version = load<int32_t>(bytes, 4), need = gpt2 ? 1 : 7;
  if (version != need)
    corrupt(path(), 4, cat("got version ", version, " of an llm.c shard, need ", need, "."));
  width_ = gpt2 ? 2 : 4;
  vocab_size_ = gpt2 ? 50257 : 128256;
  num_tokens_ = load<int32_t>(bytes, 8);
  tokens_at_ = kLlmcHeaderBytes;
  if (num_tokens_ < 0 || size != kLlmcHeaderBytes + num_tokens_ * width_)
    corrupt(path(), 8,
            cat("the header says ", num_tokens_, " tokens of ", width_, " bytes, the file has ",
                size - kLlmcHeaderBytes, " bytes of them."));
}

void TokenFile::read_nanogpt() {
  format_ = "nanoGPT";
  const int64_t size = static_cast<int64_t>(bytes_.size());
  if (size % 2 != 0) corrupt(path(), size, "an odd number of bytes cannot be 16-bit tokens.");
  num_tokens_ = size / 2;
}

void TokenFile::read_megatron(const fs::path& index_path) {
  format_ = "Megatron";
  const MappedFile map(index_path);
  IndexReader in{map.bytes(), index_path};
  in.skip(34, 1, "the header");
  if (!starts_with(in.bytes, kMegatronMagic)) corrupt(index_path, 0, "it does not start with \"MMIDIDX\".");
  const auto version = load<uint64_t>(in.bytes, 9);
  if (version != 1) corrupt(index_path, 9, cat("got version ", version, ", need 1."));
  const auto code = load<uint8_t>(in.bytes, 17);
  width_ = megatron_width(code);
  if (width_ == 0) corrupt(index_path, 17, cat("got dtype code ", int{code}, ", need one of integers."));
  signed_ = code != 1 && code != 8;
  const auto sequences = load<int64_t>(in.bytes, 18), borders = load<int64_t>(in.bytes, 26);
  const int64_t lengths = in.skip(sequences, 4, "the lengths");
  const int64_t pointers = in.skip(sequences, 8, "the pointers");
  const int64_t documents = in.skip(borders, 8, "the documents");
  const int64_t size = static_cast<int64_t>(bytes_.size());
  std::vector<int64_t> starts;  // of the sequences, and the end
  for (int64_t i = 0; i < sequences; ++i) {
    const auto length = load<int32_t>(in.bytes, lengths + 4 * i);
    const auto pointer = load<int64_t>(in.bytes, pointers + 8 * i);
    if (length < 0) corrupt(index_path, lengths + 4 * i, cat("sequence ", i, " has length ", length, "."));
    if (pointer != num_tokens_ * width_)
      corrupt(index_path, pointers + 8 * i,
              cat("sequence ", i, " is at byte ", pointer, ", need ", num_tokens_ * width_,
                  ": one follows the other."));
    starts.push_back(num_tokens_);
    num_tokens_ += length;
    if (num_tokens_ > size / width_)
      corrupt(path(), size, cat("the file ends in sequence ", i, " of its index."));
  }
  starts.push_back(num_tokens_);
  if (size != num_tokens_ * width_)
    corrupt(path(), num_tokens_ * width_, cat("the file has ", size, " bytes, its index ends here."));
  int64_t before = 0;
  for (int64_t i = 0; i < borders; ++i) {
    const auto sequence = load<int64_t>(in.bytes, documents + 8 * i);
    const bool ends_right = (i > 0 || sequence == 0) && (i + 1 < borders || sequence == sequences);
    if (sequence < before || sequence > sequences || !ends_right)
      corrupt(index_path, documents + 8 * i,
              cat("document ", i, " starts at sequence ", sequence, ": not in order."));
    begins_.push_back(starts[static_cast<size_t>(sequence)]);
    before = sequence;
  }
  if (begins_.empty()) corrupt(index_path, 26, "no documents.");
  num_documents_ = borders - 1;
}

int64_t TokenFile::document_begin(int64_t document) const {
  if (borders_at_ > 0) return load<int64_t>(bytes_, borders_at_ + 8 * document);
  if (!begins_.empty()) return begins_[static_cast<size_t>(document)];
  return document == 0 ? 0 : num_tokens_;
}

template <class T>
void TokenFile::copy(int64_t begin, int64_t count, int32_t* out, int64_t limit) const {
  const std::byte* from = bytes_.data() + tokens_at_ + begin * static_cast<int64_t>(sizeof(T));
  bool bad = false;
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, from + i * static_cast<int64_t>(sizeof(T)), sizeof value);
    out[i] = static_cast<int32_t>(value);
    bad |= static_cast<uint64_t>(static_cast<int64_t>(value)) >= static_cast<uint64_t>(limit);
  }
  for (int64_t i = 0; bad && i < count; ++i) {
    T value;
    std::memcpy(&value, from + i * static_cast<int64_t>(sizeof(T)), sizeof value);
    if (static_cast<uint64_t>(static_cast<int64_t>(value)) >= static_cast<uint64_t>(limit))
      corrupt(path(), tokens_at_ + (begin + i) * static_cast<int64_t>(sizeof(T)),
              cat("got token ", +value, ", need 0 to ", limit - 1,
                  ". Is it data of another tokenizer, or a damaged file?"));
  }
}

void TokenFile::read(int64_t begin, int64_t count, int32_t* out, int64_t limit) const {
  if (count == 0) return;
  if (width_ == 2 && !signed_) return copy<uint16_t>(begin, count, out, limit);
  if (width_ == 2) return copy<int16_t>(begin, count, out, limit);
  if (width_ == 4) return copy<int32_t>(begin, count, out, limit);
  if (width_ == 8) return copy<int64_t>(begin, count, out, limit);
  return signed_ ? copy<int8_t>(begin, count, out, limit) : copy<uint8_t>(begin, count, out, limit);
}

int64_t TokenFile::largest_id() const {
  std::vector<int32_t> ids(1 << 16);
  int32_t largest = -1;
  for (int64_t at = 0; at < num_tokens_; at += static_cast<int64_t>(ids.size())) {
    const int64_t count = std::min(num_tokens_ - at, static_cast<int64_t>(ids.size()));
    read(at, count, ids.data(), kMaxId + 1);
    largest = std::max(largest, *std::max_element(ids.begin(), ids.begin() + count));
  }
  return largest;
}

void TokenFile::verify(int64_t vocab_size) const {
  if (header_ && shard_digest(bytes_) != header_->content)
    throw Error(ErrorCode::kCorrupt,
                cat("[data.tokens] ", path().string(), ": byte 48: the hash of the content is ",
                    hex(shard_digest(bytes_)), ", the header says ", hex(header_->content),
                    ": the file is damaged. Build it again."));
  std::vector<int32_t> ids(1 << 16);
  for (int64_t at = 0; at < num_tokens_; at += static_cast<int64_t>(ids.size()))
    read(at, std::min(num_tokens_ - at, static_cast<int64_t>(ids.size())), ids.data(), vocab_size);
}

Sha256Digest TokenFile::identity() const {
  if (header_) return header_->content;
  constexpr int64_t kSamples = 64, kSampleBytes = 4096;
  const int64_t size = static_cast<int64_t>(bytes_.size());
  Sha256 hash;
  hash.update(cat(format_, " ", size, " ", num_documents_, " ", width_));
  hash.update(begins_.data(), begins_.size() * sizeof(int64_t));
  if (ids_) {
    hash.update(bytes_.data(), bytes_.size());
    return hash.finish();
  }
  for (int64_t i = 0; i < kSamples; ++i) {
    const int64_t at = std::max<int64_t>(0, size - kSampleBytes) * i / (kSamples - 1);
    hash.update(bytes_.data() + at, static_cast<size_t>(std::min(kSampleBytes, size - at)));
  }
  return hash.finish();
}

TokenFiles list_token_files(const fs::path& path) {
  if (!fs::is_directory(path)) return {{path}, {}};
  TokenFiles files;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(path)) {
    const auto kind = entry.path().extension();
    if (entry.is_regular_file() && (kind == ".bin" || kind == ".tokens")) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  for (const fs::path& file : found) {
    std::string stem = file.stem().string();
    std::replace_if(
        stem.begin(), stem.end(), [](char c) { return c == '-' || c == '.'; }, '_');
    stem = "_" + stem + "_";
    const bool validation = stem.find("_val_") != std::string::npos ||
                            stem.find("_valid_") != std::string::npos ||
                            stem.find("_validation_") != std::string::npos;
    (validation ? files.held_out : files.train).push_back(file);
  }
  if (found.empty())
    throw Error(ErrorCode::kNotFound,
                cat("[data.tokens] ", path.string(),
                    ": neither manifest.json nor a .bin file in it. Make a data set with "
                    "hadal data build."));
  return files;
}

}  // namespace hadal
