// Rows of tokens for training, each a pure function of (data, settings, row number): whatever was read
// before, by whom, on how many machines, row j is the same. A trainer's cursor is one number. Torch-free.
//
// The stream of a source is its documents, an EOS after each, in an order that is shuffled anew each epoch,
// epoch after epoch without end. Row i of the stream holds positions [i T, i T + T + 1 + J): it predicts
// the T tokens after its first, and J more for multi-token prediction. Rows overlap by 1 + J, so every token
// of every epoch is predicted exactly once (but the first of all, which has nothing before it). Rows that
// start in one epoch are read in shuffled order. Sources are blended by error diffusion: the one whose share
// of rows lags most is next.
//
// Packing by best fit instead: a row holds whole documents and no more than T + 1 tokens of them, filler
// after. Documents longer than that are cut every T tokens, pieces overlapping by one. Each token but the
// first of its document is predicted exactly once per epoch: targets stay within a piece.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace hadal {

// Where tokens come from. `path`: a folder made by `hadal data build` (or its manifest.json), a shard of it,
// an llm.c shard or nanoGPT .bin, a Megatron .idx or .bin (its pair beside it), or a folder of .bin files of
// one of these kinds. Raw formats are taken as they are: no EOS is added.
struct SourceConfig {
  std::string path;
  double weight = 0;  // share of the rows, relative to the others; 0 for all: by tokens
  // Tokens in memory instead, one document; `path` names them in messages.
  std::shared_ptr<const std::vector<int32_t>> ids = nullptr;
};

enum class Packing {
  kStream,   // documents in a row, cut where rows end (V3)
  kBestFit,  // documents that fit are never cut (Ding et al., "Fewer truncations improve language modeling")
};

struct RowConfig {
  std::vector<SourceConfig> sources;
  int64_t length = 0;           // T, tokens predicted per row; at least 1
  int64_t extra = 0;            // J, more tokens at the end of each row
  uint64_t seed = 0;            // of every shuffle and of FIM
  double fim_rate = 0;          // share of documents in PSM order, [0, 1]; token ids are the manifest's
  bool mask_documents = false;  // fill RowBatch::segment_start
  Packing packing = Packing::kStream;
  // Of sources that were not split when built: the last share of the tokens, never trained on. [0, 1)
  double held_out_share = 0;
  int64_t vocab_size = 0;  // ids at or above are errors; 0: the manifest's, or the largest id + 1 (a scan)
};

struct RowBatch {
  int64_t rows = 0, length = 0;  // length: T + 1 + J
  std::vector<int32_t> ids;      // [rows, length]
  // [rows, length]: first position of each position's document within its row, for attention masks; empty
  // unless mask_documents.
  std::vector<int32_t> segment_start;
  // [rows, length]: first position of each position's piece of a document, of filler its own: targets stay
  // within a piece, whether or not attention does. Empty unless packed by best fit.
  std::vector<int32_t> piece_start;
  // [rows]: real tokens of each row; what follows them is filler (id 0), no input and no target. Empty: all.
  // Only HeldOutRows and best fit have short rows.
  std::vector<int32_t> valid;
};

struct SourceInfo {
  std::string path, format;      // "hadal", "llm.c", "nanoGPT", "Megatron", "text"
  double share = 0;              // of the rows
  int64_t documents = 0;         // trained on
  int64_t tokens_per_epoch = 0;  // EOS and FIM tokens included
  double filler = 0;             // share of the places for tokens that best fit leaves empty
};

struct RowData;

// Cheap to copy (shared, immutable). Const methods may run in several threads at once.
class RowSource {
 public:
  // Rows of one pass over all sources together: tokens per epoch / T, rounded up; of best fit, all their
  // rows. Rows go on beyond it.
  int64_t rows_per_epoch() const;
  int64_t tokens_per_epoch() const;
  int64_t vocab_size() const;  // the largest of the sources'
  int64_t row_length() const;  // T + 1 + J
  int32_t eos_id() const;      // -1: none known
  // Folder with the tokenizer.json that made the tokens; "": none known.
  const std::string& tokenizer() const;
  const std::vector<SourceInfo>& sources() const;

  // Rows first_row ... first_row + n - 1, in the order of training. first_row >= 0, no upper end. Reuses
  // out's memory. Throws corrupt, naming file and byte, for a token at or above vocab_size().
  void read(int64_t first_row, int64_t n, RowBatch& out) const;

  // Passes made over source `source` when rows [0, row) have been read, with fraction.
  double epochs(int64_t source, int64_t row) const;

  // 64 hex digits that change when data or settings do: a checkpoint's guard against resuming on other data.
  // Of raw formats, which carry no hash, the sizes and samples of the content count.
  std::string fingerprint() const;

 private:
  friend RowSource open_rows(const RowConfig& config);
  explicit RowSource(std::shared_ptr<const RowData> data) : data_(std::move(data)) {}
  std::shared_ptr<const RowData> data_;
};

// Throws invalid_argument (settings, a source shorter than a row, sources of different tokenizers),
// not_found, corrupt (naming file and byte), unsupported (a format hadal does not read).
RowSource open_rows(const RowConfig& config);

// What is never trained on, in a fixed order, source after source; every token but the first of each source
// is predicted once. The last row of a source may be short (RowBatch::valid).
class HeldOutRows {
 public:
  int64_t rows() const;        // 0: no source has a held-out part
  int64_t num_tokens() const;  // predicted tokens, all rows
  int64_t row_length() const;
  int64_t vocab_size() const;
  int64_t source_of(int64_t row) const;                          // index into RowConfig::sources
  void read(int64_t first_row, int64_t n, RowBatch& out) const;  // first_row + n <= rows()
  // `n` rows at even distances (all, if there are no more): a fixed set to measure on during training.
  std::vector<int64_t> spread(int64_t n) const;

 private:
  friend HeldOutRows open_held_out_rows(const RowConfig& config);
  explicit HeldOutRows(std::shared_ptr<const RowData> data) : data_(std::move(data)) {}
  std::shared_ptr<const RowData> data_;
};

// seed, fim_rate and weights do not matter here.
HeldOutRows open_held_out_rows(const RowConfig& config);

}  // namespace hadal
