#include "hadal/data/rows.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "hadal/base/check.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/data/blend.h"
#include "hadal/data/epoch_stream.h"
#include "hadal/data/packed_rows.h"
#include "hadal/data/permutation.h"
#include "hadal/error.h"

namespace hadal {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, cat("[data.rows] ", what));
}

// a b / c, rounded down; the product may pass 63 bits.
int64_t mul_div(int64_t a, int64_t b, int64_t c) {
  return static_cast<int64_t>(static_cast<__int128>(a) * b / c);
}

// One source and its stream.
struct Feed {
  OpenSource source;
  std::unique_ptr<EpochStream> stream;  // either
  std::unique_ptr<PackedRows> packed;   // or
  uint64_t shuffle = 0;                 // random stream of the rows' order

  int64_t tokens() const { return packed ? packed->tokens() : stream->tokens(); }  // per epoch
  // What the shares of sources without weights are in proportion to.
  int64_t size() const { return packed ? packed->rows() : stream->tokens(); }
  // Of a stream: rows that start in epochs before `epoch`.
  int64_t rows_before(int64_t epoch, int64_t length) const {
    return static_cast<int64_t>((static_cast<__int128>(epoch) * stream->tokens() + length - 1) / length);
  }
};

void check(const RowConfig& c) {
  if (c.sources.empty()) refuse("no sources. Name a data set.");
  if (c.length < 1) refuse(cat("length: got ", c.length, ", need at least 1."));
  if (c.extra < 0) refuse(cat("extra: got ", c.extra, ", need at least 0."));
  if (c.length + c.extra >= INT32_MAX) refuse(cat("length: got ", c.length, ", need less than 2^31."));
  if (!(c.fim_rate >= 0 && c.fim_rate <= 1)) refuse(cat("fim_rate: got ", c.fim_rate, ", need 0 to 1."));
  if (!(c.held_out_share >= 0 && c.held_out_share < 1))
    refuse(cat("held_out_share: got ", c.held_out_share, ", need 0 or more, below 1."));
  if (c.vocab_size < 0 || c.vocab_size > INT32_MAX)
    refuse(cat("vocab_size: got ", c.vocab_size, ", need 0 to 2^31 - 1."));
  const bool weighted = c.sources[0].weight != 0;
  for (const SourceConfig& source : c.sources) {
    if (!(source.weight >= 0 && std::isfinite(source.weight)))
      refuse(cat(source.path, ": weight: got ", source.weight, ", need 0 or more."));
    if ((source.weight != 0) != weighted)
      refuse(cat(source.path, ": weight: got ", source.weight, ": give one to every source or to none."));
  }
}

// The vocabulary of all sources, or what the configuration wants.
int64_t vocabulary(const std::vector<Feed>& feeds, const RowConfig& config) {
  int64_t largest = 0;
  for (const Feed& feed : feeds) {
    int64_t size = feed.source.vocab_size;
    if (size == 0 && config.vocab_size == 0)
      for (const DocumentSet* set : {&feed.source.train, &feed.source.held_out})
        for (const TokenFile& file : set->files()) size = std::max(size, file.largest_id() + 1);
    if (config.vocab_size > 0 && size > config.vocab_size)
      refuse(cat(config.sources[static_cast<size_t>(&feed - feeds.data())].path, ": its vocabulary is ", size,
                 ", need at most ", config.vocab_size, ". Was it made with another tokenizer?"));
    largest = std::max(largest, size);
  }
  return config.vocab_size > 0 ? config.vocab_size : largest;
}

void check_tokenizers(const std::vector<Feed>& feeds, const RowConfig& config) {
  const std::string* first = nullptr;
  size_t first_index = 0;
  for (size_t i = 0; i < feeds.size(); ++i) {
    const std::string& own = feeds[i].source.tokenizer_sha256;
    if (own.empty()) continue;
    if (first && *first != own)
      refuse(cat(config.sources[i].path, " was made with tokenizer ", own.substr(0, 12), ", ",
                 config.sources[first_index].path, " with ", first->substr(0, 12),
                 ". Build both with the same."));
    if (!first) first = &own, first_index = i;
  }
}

}  // namespace

struct RowData {
  RowConfig config;
  std::vector<Feed> feeds;
  Blend blend;
  int64_t vocab_size = 0, row_length = 0;
  int32_t eos_id = -1;
  std::string tokenizer;
  std::vector<SourceInfo> sources;
  std::vector<int64_t> held_out_before;  // [sources + 1] rows; held-out rows only

  void prepare(RowBatch& out, int64_t n) const {
    out.rows = n;
    out.length = row_length;
    out.ids.resize(static_cast<size_t>(n * row_length));
    out.segment_start.resize(config.mask_documents ? out.ids.size() : 0);
    out.piece_start.resize(config.packing == Packing::kBestFit ? out.ids.size() : 0);
    out.valid.clear();
  }
  int32_t* segment(RowBatch& out, int64_t row) const {
    return config.mask_documents ? out.segment_start.data() + row * row_length : nullptr;
  }
};

namespace {

std::shared_ptr<RowData> open_feeds(const RowConfig& config) {
  check(config);
  auto data = std::make_shared<RowData>();
  data->config = config;
  data->row_length = config.length + 1 + config.extra;
  for (const SourceConfig& one : config.sources) {
    data->feeds.push_back({one.ids ? open_source(one.ids, one.path, config.held_out_share)
                                   : open_source(one.path, config.held_out_share),
                           nullptr, nullptr, 0});
    const OpenSource& source = data->feeds.back().source;
    if ((config.mask_documents || config.packing == Packing::kBestFit) && !source.has_documents)
      refuse(cat(one.path, ": ", source.format, " files do not say where documents start, so there is ",
                 "nothing to ", config.mask_documents ? "mask" : "pack",
                 ". Convert it first: hadal data convert --eos ID."));
    if (data->eos_id < 0) data->eos_id = source.eos_id;
    if (data->tokenizer.empty()) data->tokenizer = source.tokenizer.string();
  }
  check_tokenizers(data->feeds, config);
  data->vocab_size = vocabulary(data->feeds, config);
  return data;
}

// The stream refers to the documents of its feed, which stays where it is from now on.
void open_stream(RowData& data, size_t i) {
  const RowConfig& config = data.config;
  Feed& feed = data.feeds[i];
  const std::string& path = config.sources[i].path;
  if (config.fim_rate > 0 && !feed.source.fim.known())
    refuse(
        cat(path, ": fim_rate is ", config.fim_rate,
            ", but no FIM tokens are known. Build it with a tokenizer that has them, or set the rate to 0."));
  const uint64_t stream = substream(stream_id("data.rows"), i);
  feed.shuffle = substream(stream, 0);
  const DocumentForms forms(feed.source.train,
                            {feed.source.eos_id, config.fim_rate, feed.source.fim, config.seed, stream});
  if (config.packing == Packing::kBestFit)
    feed.packed = std::make_unique<PackedRows>(
        forms, PackedRowsOptions{config.length, config.extra, config.seed, stream}, path);
  else
    feed.stream = std::make_unique<EpochStream>(forms, StreamOptions{true, config.seed, stream});
  if (feed.tokens() < config.length + 1)
    refuse(cat(path, ": ", feed.tokens(), " tokens to train on, need at least ", config.length + 1,
               " (a row). Use more text or shorter rows."));
}

}  // namespace

RowSource open_rows(const RowConfig& config) {
  auto data = open_feeds(config);
  std::vector<double> weights;
  for (size_t i = 0; i < data->feeds.size(); ++i) {
    open_stream(*data, i);
    const double weight = config.sources[i].weight;
    weights.push_back(weight > 0 ? weight : static_cast<double>(data->feeds[i].size()));
  }
  data->blend = Blend(weights);
  for (size_t i = 0; i < data->feeds.size(); ++i) {
    const Feed& feed = data->feeds[i];
    data->sources.push_back({config.sources[i].path, feed.source.format,
                             data->blend.share(static_cast<int64_t>(i)), feed.source.train.size(),
                             feed.tokens(), feed.packed ? feed.packed->filler() : 0});
  }
  return RowSource(data);
}

int64_t RowSource::tokens_per_epoch() const {
  int64_t sum = 0;
  for (const SourceInfo& source : data_->sources) sum += source.tokens_per_epoch;
  return sum;
}

int64_t RowSource::rows_per_epoch() const {
  int64_t rows = 0;
  if (data_->config.packing == Packing::kStream)
    return (tokens_per_epoch() + data_->config.length - 1) / data_->config.length;
  for (const Feed& feed : data_->feeds) rows += feed.packed->rows();
  return rows;
}

int64_t RowSource::vocab_size() const {
  return data_->vocab_size;
}

int64_t RowSource::row_length() const {
  return data_->row_length;
}

int32_t RowSource::eos_id() const {
  return data_->eos_id;
}

const std::string& RowSource::tokenizer() const {
  return data_->tokenizer;
}

const std::vector<SourceInfo>& RowSource::sources() const {
  return data_->sources;
}

void RowSource::read(int64_t first_row, int64_t n, RowBatch& out) const {
  HADAL_CHECK(first_row >= 0 && n >= 0) << "rows " << first_row << " + " << n;
  const RowConfig& config = data_->config;
  data_->prepare(out, n);
  for (int64_t i = 0; i < n; ++i) {
    const auto [source, row] = data_->blend(first_row + i);
    const Feed& feed = data_->feeds[static_cast<size_t>(source)];
    if (feed.packed) {
      const int64_t at = i * data_->row_length;
      out.valid.push_back(static_cast<int32_t>(
          feed.packed->read(row, data_->vocab_size, out.ids.data() + at, out.piece_start.data() + at)));
      continue;
    }
    const int64_t epoch = mul_div(row, config.length, feed.stream->tokens());
    const int64_t begin = feed.rows_before(epoch, config.length);
    const int64_t rows = feed.rows_before(epoch + 1, config.length) - begin;
    const Permutation order(rows, config.seed, substream(feed.shuffle, static_cast<uint64_t>(epoch)));
    const int64_t place = begin + order(row - begin);
    feed.stream->read(place * config.length, data_->row_length, data_->vocab_size,
                      out.ids.data() + i * data_->row_length, data_->segment(out, i));
  }
  if (config.mask_documents && config.packing == Packing::kBestFit) out.segment_start = out.piece_start;
}

double RowSource::epochs(int64_t source, int64_t row) const {
  const Feed& feed = data_->feeds[static_cast<size_t>(source)];
  const auto rows = static_cast<double>(data_->blend.rows_before(source, row));
  if (feed.packed) return rows / static_cast<double>(feed.packed->rows());
  return rows * static_cast<double>(data_->config.length) / static_cast<double>(feed.stream->tokens());
}

std::string RowSource::fingerprint() const {
  const RowConfig& c = data_->config;
  Sha256 hash;
  hash.update(cat("rows 1 ", c.length, " ", c.extra, " ", c.seed, " ", std::bit_cast<uint64_t>(c.fim_rate),
                  " ", c.mask_documents, " ", std::bit_cast<uint64_t>(c.held_out_share), "\n"));
  if (c.packing == Packing::kBestFit) hash.update("best fit 1\n");
  for (size_t i = 0; i < data_->feeds.size(); ++i) {
    const Feed& feed = data_->feeds[i];
    hash.update(cat(std::bit_cast<uint64_t>(data_->blend.share(static_cast<int64_t>(i))), " ",
                    feed.source.eos_id, " ", feed.source.fim.begin, " ", feed.source.fim.hole, " ",
                    feed.source.fim.end, " ", feed.tokens(), "\n"));
    for (const TokenFile& file : feed.source.train.files()) hash.update(hex(file.identity()));
  }
  return hex(hash.finish());
}

HeldOutRows open_held_out_rows(const RowConfig& config) {
  RowConfig stream = config;  // a fixed order needs no packing
  stream.packing = Packing::kStream;
  auto data = open_feeds(stream);
  data->held_out_before = {0};
  for (Feed& feed : data->feeds) {
    feed.stream = std::make_unique<EpochStream>(
        DocumentForms(feed.source.held_out, {.eos_id = feed.source.eos_id}), StreamOptions{.shuffle = false});
    const int64_t targets = std::max<int64_t>(0, feed.stream->tokens() - 1);
    data->held_out_before.push_back(data->held_out_before.back() +
                                    (targets + config.length - 1) / config.length);
  }
  return HeldOutRows(data);
}

int64_t HeldOutRows::rows() const {
  return data_->held_out_before.back();
}

int64_t HeldOutRows::num_tokens() const {
  int64_t sum = 0;
  for (const Feed& feed : data_->feeds) sum += std::max<int64_t>(0, feed.stream->tokens() - 1);
  return sum;
}

int64_t HeldOutRows::row_length() const {
  return data_->row_length;
}

int64_t HeldOutRows::vocab_size() const {
  return data_->vocab_size;
}

int64_t HeldOutRows::source_of(int64_t row) const {
  HADAL_CHECK(row >= 0 && row < rows()) << "row " << row;
  const auto& before = data_->held_out_before;
  return std::upper_bound(before.begin(), before.end(), row) - before.begin() - 1;
}

void HeldOutRows::read(int64_t first_row, int64_t n, RowBatch& out) const {
  HADAL_CHECK(first_row >= 0 && n >= 0 && first_row + n <= rows()) << "rows " << first_row << " + " << n;
  data_->prepare(out, n);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t source = source_of(first_row + i);
    const EpochStream& stream = *data_->feeds[static_cast<size_t>(source)].stream;
    const int64_t at =
        (first_row + i - data_->held_out_before[static_cast<size_t>(source)]) * data_->config.length;
    const int64_t count = std::min(data_->row_length, stream.tokens() - at);
    int32_t* ids = out.ids.data() + i * data_->row_length;
    int32_t* segment = data_->segment(out, i);
    stream.read(at, count, data_->vocab_size, ids, segment);
    std::fill(ids + count, ids + data_->row_length, 0);
    for (int64_t t = count; segment && t < data_->row_length; ++t) segment[t] = static_cast<int32_t>(count);
    out.valid.push_back(static_cast<int32_t>(count));
  }
}

std::vector<int64_t> HeldOutRows::spread(int64_t n) const {
  const int64_t all = rows(), chosen = std::min(std::max<int64_t>(n, 0), all);
  std::vector<int64_t> list;
  for (int64_t i = 0; i < chosen; ++i) list.push_back(mul_div(i, all, chosen));
  return list;
}

}  // namespace hadal
