// Event files for TensorBoard (folder RUN/tensorboard), written without TensorFlow: TFRecord framing around
// protocol buffers of the messages Event and Summary (tensorflow/core/util/event.proto,
// framework/summary.proto). Little-endian machines.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/report/metrics.h"

namespace hadal {

// CRC-32C (Castagnoli, RFC 3720 B.4) and the form TFRecord stores: rotated right by 15, plus 0xa282ead8.
uint32_t crc32c(std::string_view bytes);
uint32_t masked_crc32c(std::string_view bytes);

// length u64, masked CRC of the length, the data, masked CRC of the data.
std::string tf_record(std::string_view data);

// Serialised Event messages. `time` is in seconds since 1970.
std::string version_event(double time);  // "brain.Event:2", first in a file
std::string session_event(double time,
                          int64_t step);  // points of this and later steps in older files are void
std::string scalar_event(double time, int64_t step, std::string_view tag, double value);  // stored as float

// Counts per bucket; bucket i holds values in (limits[i - 1], limits[i]].
struct Histogram {
  double min = 0, max = 0, num = 0, sum = 0, sum_squares = 0;
  std::vector<double> limits, counts;
};
// One bucket per expert: its load divided by the mean load, so 1 is balance.
Histogram load_histogram(std::span<const int64_t> load);
std::string histogram_event(double time, int64_t step, std::string_view tag, const Histogram& histogram);

// A new event file in `folder` (created). Each add() is one write(). After a resume, `first_step` (the first
// step this process will write) voids what a crashed process wrote beyond it. Errors as LineFile.
class TensorBoardWriter {
 public:
  explicit TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step = 0);
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;

  void add(const StepRecord& record);    // train/loss, train/mtp_loss_1, train/lr, ...
  void add(const EvalRecord& record);    // eval/loss, eval/bits_per_byte, eval/mtp_acceptance_1, ...
  void add(const LoadRecord& record);    // load/layer_3, histograms
  void add(const ValuesRecord& record);  // train/reward, ...; eval/accuracy, ...
  void add(const TimingRecord& record);  // speed/tokens_per_second, speed/mfu
  void scalar(int64_t step, std::string_view tag, double value);
  const std::filesystem::path& path() const { return path_; }

 private:
  void write(std::string_view event);
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace hadal
