#include "hadal/data/packed_rows.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "hadal/base/text.h"
#include "hadal/data/permutation.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr uint64_t kRowOrder = 5,
                   kPieceOrder = 6;  // substreams; the others are DocumentForms' and EpochStream's

}  // namespace

std::vector<uint32_t> best_fit_decreasing(std::span<const int64_t> sizes, int64_t capacity) {
  std::vector<uint32_t> bin_of;
  bin_of.reserve(sizes.size());
  std::map<int64_t, std::vector<uint32_t>> open;  // room -> bins
  uint32_t bins = 0;
  for (const int64_t size : sizes) {
    uint32_t bin = bins;
    int64_t room = capacity;
    if (const auto found = open.lower_bound(size); found != open.end()) {
      room = found->first, bin = found->second.back();
      found->second.pop_back();
      if (found->second.empty()) open.erase(found);
    } else {
      ++bins;
    }
    if (room > size) open[room - size].push_back(bin);
    bin_of.push_back(bin);
  }
  return bin_of;
}

PackedRows::PackedRows(DocumentForms documents, const PackedRowsOptions& options, const std::string& name)
    : documents_(std::move(documents)), options_(options), capacity_(options.length + 1) {
  cut_documents(name);
  sort_pieces();
  std::vector<int64_t> sizes;
  for (const Piece& piece : pieces_) sizes.push_back(size(piece));
  const std::vector<uint32_t> bin_of = best_fit_decreasing(sizes, capacity_);
  const uint32_t bins = bin_of.empty() ? 0 : *std::max_element(bin_of.begin(), bin_of.end()) + 1;
  bin_begin_.assign(size_t{bins} + 1, 0);
  for (const uint32_t bin : bin_of) ++bin_begin_[bin + 1];
  std::partial_sum(bin_begin_.begin(), bin_begin_.end(), bin_begin_.begin());
  std::vector<uint32_t> next(bin_begin_.begin(), bin_begin_.end() - 1);
  members_.resize(bin_of.size());
  for (size_t i = 0; i < bin_of.size(); ++i) members_[next[bin_of[i]]++] = static_cast<uint32_t>(i);
}

// Fills pieces_ in the order of the documents.
void PackedRows::cut_documents(const std::string& name) {
  for (int64_t block = 0; block < documents_.blocks(); ++block) {
    const std::vector<bool> chosen = documents_.chosen(/*epoch=*/0, block);
    for (int64_t i = 0; i < documents_.block_size(block); ++i) {
      const int64_t document = block * DocumentForms::kBlock + i;
      fim_.push_back(chosen[static_cast<size_t>(i)]);
      const int64_t tokens = documents_.tokens(document, fim_.back());
      tokens_ += tokens;
      const int64_t pieces = tokens < 2 ? tokens : (tokens - 2) / options_.length + 1;
      if (std::max(document, static_cast<int64_t>(pieces_.size()) + pieces) >= int64_t{UINT32_MAX})
        throw Error(ErrorCode::kInvalidArgument,
                    cat("[data.packing] ", name, ": got ", UINT32_MAX,
                        " documents or pieces of them, need fewer. Give it as several sources."));
      for (int64_t number = 0; number < pieces; ++number)
        pieces_.push_back({static_cast<uint32_t>(document), static_cast<uint32_t>(number)});
    }
  }
}

// By size, descending; equal ones stay in the order of the documents.
void PackedRows::sort_pieces() {
  larger_.assign(static_cast<size_t>(capacity_) + 1, 0);
  for (const Piece& piece : pieces_) ++larger_[static_cast<size_t>(size(piece)) - 1];
  for (int64_t s = capacity_ - 1; s >= 0; --s)
    larger_[static_cast<size_t>(s)] += larger_[static_cast<size_t>(s) + 1];
  std::vector<uint32_t> next = larger_;
  std::vector<Piece> sorted(pieces_.size());
  for (const Piece& piece : pieces_) sorted[next[static_cast<size_t>(size(piece))]++] = piece;
  pieces_ = std::move(sorted);
}

int64_t PackedRows::left(const Piece& piece) const {
  return documents_.tokens(piece.document, fim_[piece.document]) - piece.number * options_.length;
}

int64_t PackedRows::size(const Piece& piece) const {
  return std::min(left(piece), capacity_);
}

double PackedRows::filler() const {
  int64_t filled = 0;
  for (const Piece& piece : pieces_) filled += size(piece);
  return rows() == 0 ? 0 : 1 - static_cast<double>(filled) / static_cast<double>(rows() * capacity_);
}

// A piece of the size that is packed at `place` of pieces_, drawn for the epoch.
const PackedRows::Piece& PackedRows::piece_at(int64_t place, int64_t epoch) const {
  const auto size = static_cast<size_t>(this->size(pieces_[static_cast<size_t>(place)]));
  const int64_t begin = larger_[size], end = larger_[size - 1];
  const uint64_t stream =
      substream(substream(substream(options_.stream, kPieceOrder), static_cast<uint64_t>(epoch)), size);
  return pieces_[static_cast<size_t>(begin + Permutation(end - begin, options_.seed, stream)(place - begin))];
}

int64_t PackedRows::read(int64_t row, int64_t limit, int32_t* ids, int32_t* piece_start) const {
  const int64_t epoch = row / rows(), places = capacity_ + options_.extra;
  const uint64_t stream = substream(substream(options_.stream, kRowOrder), static_cast<uint64_t>(epoch));
  const auto bin = static_cast<size_t>(Permutation(rows(), options_.seed, stream)(row % rows()));
  int64_t done = 0;
  for (uint32_t i = bin_begin_[bin]; i < bin_begin_[bin + 1]; ++i) {
    const Piece& piece = piece_at(members_[i], epoch);
    // One that fills the row may go on into the extra places.
    const int64_t rest = left(piece), take = rest > capacity_ ? std::min(rest, places) : rest;
    documents_.copy(piece.document, fim_[piece.document], epoch, piece.number * options_.length, take, limit,
                    ids + done);
    std::fill_n(piece_start + done, take, static_cast<int32_t>(done));
    done += take;
  }
  std::fill(ids + done, ids + places, 0);
  for (int64_t t = done; t < places; ++t) piece_start[t] = static_cast<int32_t>(t);
  return done;
}

}  // namespace hadal
