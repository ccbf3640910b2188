// The two files of a batch: requests, one JSON object a line in OpenAI's batch shape, and their results.
// Results are appended as they come, so that a batch that was killed goes on where it stopped.
#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <unordered_map>
#include <vector>

namespace hadal {

// One line of the requests.
struct BatchRequest {
  int64_t line = 0;       // from 1
  std::string id;         // of its result: "batch_req_" and a hash of the line
  std::string custom_id;  // "": the line has none that can be read
  std::string url;
  std::string body;     // JSON text; with a seed made from custom_id if it came without one
  std::string problem;  // not empty: why the line is no request; url and body are not there
  std::string param;    // the field at fault
};

BatchRequest parse_batch_line(const std::string& text, int64_t line);

// Where the lines of a file of requests are.
class BatchInput {
 public:
  // Reads all of it. Throws not_found, unavailable; invalid_argument if two lines have one custom_id.
  explicit BatchInput(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  size_t size() const { return places_.size(); }  // lines that are not blank
  BatchRequest read(size_t i);

  const std::string& id(size_t i) const { return places_[i].id; }
  // The index of a line; -1: there is none.
  int64_t find_id(const std::string& id) const;
  int64_t line_of_custom_id(const std::string& custom_id) const;

 private:
  struct Place {
    std::streamoff offset = 0;
    int64_t line = 0;
    std::string id;
  };
  std::filesystem::path path_;
  std::ifstream file_;
  std::vector<Place> places_;
  std::unordered_map<std::string, int64_t> index_of_id_, line_of_custom_id_;
};

// What became of a request.
struct BatchResult {
  int status = 0;    // HTTP status; 0: the line was no request
  std::string body;  // JSON text; with status 0 unused
  bool succeeded() const { return status == 200; }
};

std::string batch_result_line(const BatchRequest& request, const BatchResult& result);

// The file of results. One process writes it at a time.
class BatchOutput {
 public:
  // Reads what is there of an earlier run and cuts a last line that was not written whole. Throws unavailable
  // (also if another process writes it), corrupt (a line that is no result), invalid_argument (results of
  // other requests than `input`'s).
  BatchOutput(std::filesystem::path path, const BatchInput& input);
  ~BatchOutput();
  BatchOutput(const BatchOutput&) = delete;

  bool has(size_t i) const { return done_[i]; }  // the input's line i is answered
  int64_t succeeded() const { return succeeded_; }
  int64_t failed() const { return failed_; }

  // Adds a whole line; on the disk within a second. Throws exhausted, unavailable.
  void append(const std::string& line);
  void sync();

 private:
  void read_results(const BatchInput& input);
  void take_result(std::string_view text, int64_t line, const BatchInput& input);

  std::filesystem::path path_;
  int fd_ = -1;
  std::vector<bool> done_;
  int64_t succeeded_ = 0, failed_ = 0;
  double last_sync_ = 0;
  bool unsynced_ = false;
};

}  // namespace hadal
