#include "hadal/report/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit)
      value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0);  // reflected polynomial
    table[byte] = value;
  }
  return table;
}

template <class T>
std::string bytes_of(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

// Protocol buffer wire format: key = field number * 8 + wire type.
constexpr int kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  return out += static_cast<char>(value);
}
std::string key(int field, int wire_type) {
  return varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire_type));
}
std::string field_bytes(int field, std::string_view value) {
  return key(field, kBytes) + varint(value.size()) + std::string(value);
}
std::string field_integer(int field, int64_t value) {
  return key(field, kVarint) + varint(static_cast<uint64_t>(value));
}
std::string field_double(int field, double value) {
  return key(field, kFixed64) + bytes_of(value);
}
std::string field_float(int field, float value) {
  return key(field, kFixed32) + bytes_of(value);
}
std::string field_doubles(int field, const std::vector<double>& values) {
  std::string packed;
  for (const double value : values) packed += bytes_of(value);
  return field_bytes(field, packed);
}

// Event: wall_time 1, step 2, file_version 3, summary 5, session_log 7.
std::string event_head(double time, int64_t step) {
  return field_double(1, time) + field_integer(2, step);
}

// Summary.value 1; Value: tag 1, simple_value 2, histo 5.
std::string summary_event(double time, int64_t step, std::string_view tag, const std::string& value) {
  return event_head(time, step) + field_bytes(5, field_bytes(1, field_bytes(1, tag) + value));
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "host";
  return name;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = crc_table();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = crc >> 8 ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 255];
  return ~crc;
}

uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

std::string tf_record(std::string_view data) {
  const std::string length = bytes_of(static_cast<uint64_t>(data.size()));
  return length + bytes_of(masked_crc32c(length)) + std::string(data) + bytes_of(masked_crc32c(data));
}

std::string version_event(double time) {
  return field_double(1, time) + field_bytes(3, "brain.Event:2");
}

std::string session_event(double time, int64_t step) {
  return event_head(time, step) + field_bytes(7, field_integer(1, 1));  // SessionLog.status = START
}

std::string scalar_event(double time, int64_t step, std::string_view tag, double value) {
  return summary_event(time, step, tag, field_float(2, static_cast<float>(value)));
}

Histogram load_histogram(std::span<const int64_t> load) {
  Histogram h;
  if (load.empty()) return h;
  double total = 0;
  for (const int64_t one : load) total += static_cast<double>(one);
  const double mean = total > 0 ? total / static_cast<double>(load.size()) : 1;
  h.limits = {0};
  for (int quarter = 1; quarter <= 16; ++quarter)
    h.limits.push_back(quarter / 4.0);  // up to 4 times the mean
  for (const double limit : {6.0, 8.0, 12.0, 16.0, 32.0, 64.0, 128.0, 1e9}) h.limits.push_back(limit);
  h.counts.assign(h.limits.size(), 0);
  h.min = h.max = static_cast<double>(load[0]) / mean;
  for (const int64_t one : load) {
    const double share = static_cast<double>(one) / mean;
    size_t bucket = 0;
    while (bucket + 1 < h.limits.size() && share > h.limits[bucket]) ++bucket;
    h.counts[bucket] += 1;
    h.min = std::min(h.min, share);
    h.max = std::max(h.max, share);
    h.num += 1;
    h.sum += share;
    h.sum_squares += share * share;
  }
  while (h.limits.size() > 1 && h.counts.back() == 0) {
    h.limits.pop_back();
    h.counts.pop_back();
  }
  return h;
}

// HistogramProto: min 1, max 2, num 3, sum 4, sum_squares 5, bucket_limit 6, bucket 7 (packed doubles).
std::string histogram_event(double time, int64_t step, std::string_view tag, const Histogram& h) {
  return summary_event(
      time, step, tag,
      field_bytes(5, field_double(1, h.min) + field_double(2, h.max) + field_double(3, h.num) +
                         field_double(4, h.sum) + field_double(5, h.sum_squares) +
                         field_doubles(6, h.limits) + field_doubles(7, h.counts)));
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw file_error("create", folder, error.value());
  const double start = now();
  // The name TensorBoard looks for; files are read in the order of their names, so the time comes first.
  const std::string stem =
      cat("events.out.tfevents.", static_cast<int64_t>(start), ".", host_name(), ".", ::getpid());
  for (int number = 0; fd_ < 0; ++number) {
    path_ = folder / cat(stem, ".", number);
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    if (fd_ < 0 && errno != EEXIST) throw file_error("create", path_, errno);
  }
  try {
    write(version_event(start));
    if (first_step > 0) write(session_event(start, first_step));
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

TensorBoardWriter::~TensorBoardWriter() {
  ::close(fd_);
}

void TensorBoardWriter::write(std::string_view event) {
  const std::string record = tf_record(event);
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t put = ::write(fd_, record.data() + done, record.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw file_error("write", path_, errno);
    done += static_cast<size_t>(put);
  }
}

void TensorBoardWriter::scalar(int64_t step, std::string_view tag, double value) {
  write(scalar_event(now(), step, tag, value));
}

void TensorBoardWriter::add(const StepRecord& r) {
  scalar(r.step, "train/loss", r.loss);
  for (size_t depth = 0; depth < r.mtp_loss.size(); ++depth)
    scalar(r.step, cat("train/mtp_loss_", depth + 1), r.mtp_loss[depth]);
  scalar(r.step, "train/balance_loss", r.balance_loss);
  scalar(r.step, "train/lr", r.lr);
  scalar(r.step, "train/grad_norm", r.grad_norm);
  if (r.max_vio) scalar(r.step, "train/max_vio", *r.max_vio);
  scalar(r.step, "train/skipped", static_cast<double>(r.skipped));
  scalar(r.step, "train/tokens", static_cast<double>(r.tokens));
}

void TensorBoardWriter::add(const EvalRecord& r) {
  scalar(r.step, "eval/loss", r.loss);
  if (r.bits_per_byte) scalar(r.step, "eval/bits_per_byte", *r.bits_per_byte);
  if (r.accuracy) scalar(r.step, "eval/accuracy", *r.accuracy);
  for (size_t depth = 0; depth < r.mtp_acceptance.size(); ++depth)
    scalar(r.step, cat("eval/mtp_acceptance_", depth + 1), r.mtp_acceptance[depth]);
  if (r.max_vio) scalar(r.step, "eval/max_vio", *r.max_vio);
}

void TensorBoardWriter::add(const LoadRecord& r) {
  for (const LayerLoad& layer : r.layers)
    write(histogram_event(now(), r.step, cat("load/layer_", layer.layer), load_histogram(layer.load)));
}

void TensorBoardWriter::add(const ValuesRecord& r) {
  const std::string prefix = r.kind == "rl" ? "train/" : "eval/";
  for (const auto& [name, value] : r.values) scalar(r.step, prefix + name, value);
}

void TensorBoardWriter::add(const TimingRecord& r) {
  scalar(r.step, "speed/tokens_per_second", r.tokens_per_second);
  scalar(r.step, "speed/seconds_per_step", r.seconds);
  if (r.mfu) scalar(r.step, "speed/mfu", *r.mfu);
}

}  // namespace hadal
