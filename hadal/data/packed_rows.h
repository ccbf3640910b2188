// Rows of whole documents, packed by best fit. Torch-free.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "hadal/data/document_forms.h"

namespace hadal {

// The bin of each thing, of sizes in descending order, 1 to `capacity`: the one with the least room that is
// enough (of equals, the last that was filled), else a new one. Best-fit decreasing, at most 11/9 of the
// fewest bins + 1 (Johnson 1973). O(n log capacity).
std::vector<uint32_t> best_fit_decreasing(std::span<const int64_t> sizes, int64_t capacity);

struct PackedRowsOptions {
  int64_t length = 0, extra = 0;  // T, J
  uint64_t seed = 0, stream = 0;
};

// Every epoch holds every document once, in rows of T + 1 + J places, of which the first T + 1 are filled
// (Ding et al., ICML 2024). A document of up to T + 1 tokens, EOS and FIM tokens included, is whole; a longer
// one is cut into pieces of T + 1 tokens, each starting with the last of the one before, and a rest that is
// packed like a document. The J places hold what follows of a document that was cut after them, else filler.
//
// Which sizes share a row is the same in every epoch; which documents of such sizes, and the order of the
// rows, is drawn anew. Therefore the documents in FIM order are the same ones in every epoch, cut elsewhere.
// Memory: 12 bytes a document or piece, 4 a row.
class PackedRows {
 public:
  // Throws invalid_argument, naming `name`, for 2^32 pieces and more.
  PackedRows(DocumentForms documents, const PackedRowsOptions& options, const std::string& name);

  int64_t rows() const { return static_cast<int64_t>(bin_begin_.size()) - 1; }  // per epoch
  int64_t tokens() const { return tokens_; }                                    // per epoch, of documents
  double filler() const;  // share of the T + 1 places of all rows

  // Row `row` of all epochs, T + 1 + J places: ids (filler: 0) and the first place of each one's piece (of
  // filler: itself). Returns how many are no filler. Throws corrupt for an id of a file at or above `limit`.
  int64_t read(int64_t row, int64_t limit, int32_t* ids, int32_t* piece_start) const;

 private:
  struct Piece {
    uint32_t document, number;  // it starts at number * T
  };
  void cut_documents(const std::string& name);
  void sort_pieces();
  int64_t left(const Piece& piece) const;  // tokens from its start to the end of the document
  int64_t size(const Piece& piece) const;
  const Piece& piece_at(int64_t place, int64_t epoch) const;

  DocumentForms documents_;
  PackedRowsOptions options_;
  int64_t capacity_, tokens_ = 0;
  std::vector<bool> fim_;            // [documents]
  std::vector<Piece> pieces_;        // by size, descending
  std::vector<uint32_t> larger_;     // [capacity + 1]: pieces larger than that size
  std::vector<uint32_t> members_;    // places in pieces_, bin after bin
  std::vector<uint32_t> bin_begin_;  // [rows + 1]
};

}  // namespace hadal
