#include "hadal/data/document_forms.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "hadal/base/random.h"
#include "hadal/data/permutation.h"

namespace hadal {
namespace {

constexpr int64_t kShortest = 3;                  // tokens of a document that FIM may touch
constexpr uint64_t kFimChoice = 3, kFimCuts = 4;  // substreams; 1 and 2 are EpochStream's

// A run of tokens of a document as it is learned from: of its file, or one special token.
struct Piece {
  int64_t begin = 0, count = 0;
  int32_t special = -1;
};

}  // namespace

uint64_t substream(uint64_t stream, uint64_t index) {
  const auto bits = philox(stream, index, 0x64617461);
  return uint64_t{bits[0]} << 32 | bits[1];
}

DocumentForms::DocumentForms(const DocumentSet& documents, const FormOptions& options)
    : documents_(&documents), options_(options) {
  double seen = 0;  // eligible documents so far
  int64_t chosen = 0;
  for (int64_t block = 0; options_.fim_rate > 0 && block < blocks(); ++block) {
    seen += static_cast<double>(eligible(block));
    const auto until = static_cast<int64_t>(std::floor(options_.fim_rate * seen));
    fim_quota_.push_back(static_cast<int32_t>(until - chosen));
    chosen = until;
  }
}

int64_t DocumentForms::block_size(int64_t block) const {
  return std::min(kBlock, size() - block * kBlock);
}

int64_t DocumentForms::block_tokens(int64_t block) const {
  const int64_t first = block * kBlock, count = block_size(block);
  const int64_t own = documents_->tokens_before(first + count) - documents_->tokens_before(first);
  const int64_t fim = fim_quota_.empty() ? 0 : 3 * fim_quota_[static_cast<size_t>(block)];
  return own + (options_.eos_id >= 0 ? count : 0) + fim;
}

int64_t DocumentForms::eligible(int64_t block) const {
  int64_t count = 0;
  for (int64_t i = 0; i < block_size(block); ++i)
    count += documents_->at(block * kBlock + i).count >= kShortest;
  return count;
}

std::vector<bool> DocumentForms::chosen(int64_t epoch, int64_t block) const {
  const int64_t count = block_size(block);
  std::vector<bool> fim(static_cast<size_t>(count));
  const int32_t quota = fim_quota_.empty() ? 0 : fim_quota_[static_cast<size_t>(block)];
  if (quota == 0) return fim;
  const uint64_t stream =
      substream(substream(substream(options_.stream, kFimChoice), static_cast<uint64_t>(epoch)),
                static_cast<uint64_t>(block));
  const Permutation choice(count, options_.seed, stream);
  int32_t done = 0;
  for (int64_t i = 0; done < quota; ++i) {
    const int64_t document = choice(i);
    if (documents_->at(block * kBlock + document).count < kShortest) continue;
    fim[static_cast<size_t>(document)] = true;
    ++done;
  }
  return fim;
}

int64_t DocumentForms::tokens(int64_t document, bool fim) const {
  return documents_->at(document).count + (options_.eos_id >= 0) + (fim ? 3 : 0);
}

void DocumentForms::copy(int64_t document, bool fim, int64_t epoch, int64_t from, int64_t count,
                         int64_t limit, int32_t* out) const {
  const DocumentTokens tokens = documents_->at(document);
  const int64_t begin = tokens.begin, n = tokens.count;
  std::array<Piece, 7> pieces{Piece{begin, n}};
  size_t used = 1;
  if (fim) {
    const uint64_t stream = substream(substream(options_.stream, kFimCuts), static_cast<uint64_t>(epoch));
    const auto bits = philox(options_.seed, stream, static_cast<uint64_t>(document));
    int64_t cuts[2];  // uniform in [0, n]
    for (size_t i = 0; i < 2; ++i)
      cuts[i] = static_cast<int64_t>((uint64_t{bits[2 * i]} << 32 | bits[2 * i + 1]) %
                                     static_cast<uint64_t>(n + 1));
    const auto [a, b] = std::minmax(cuts[0], cuts[1]);
    pieces = {Piece{0, 1, options_.fim.begin}, Piece{begin, a},
              Piece{0, 1, options_.fim.hole},  Piece{begin + b, n - b},
              Piece{0, 1, options_.fim.end},   Piece{begin + a, b - a}};
    used = 6;
  }
  if (options_.eos_id >= 0) pieces[used++] = {0, 1, options_.eos_id};
  for (size_t i = 0; i < used && count > 0; ++i) {
    const Piece& piece = pieces[i];
    if (from >= piece.count) {
      from -= piece.count;
      continue;
    }
    const int64_t take = std::min(piece.count - from, count);
    if (piece.special >= 0)
      *out = piece.special;
    else
      tokens.file->read(piece.begin + from, take, out, limit);
    out += take, count -= take, from = 0;
  }
}

}  // namespace hadal
