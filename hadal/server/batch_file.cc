#include "hadal/server/batch_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "hadal/base/clock.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/sha256.h"
#include "hadal/base/text.h"
#include "hadal/server/api_error.h"
#include "hadal/server/json_fields.h"

namespace hadal {
namespace {

constexpr std::string_view kResultBegin = "{\"id\":\"batch_req_";
constexpr double kSyncSeconds = 1;
constexpr size_t kMaxCustomId = 1024;

std::string digits_of(std::string_view text) {
  return hex(sha256(text)).substr(0, 24);
}

uint64_t seed_of(const std::string& custom_id) {
  const Sha256Digest digest = sha256(cat("seed of ", custom_id));
  uint64_t seed = 0;
  for (size_t i = 0; i < 8; ++i) seed = seed << 8 | digest[i];
  return seed >> 1;  // JSON's integers are signed
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

// Throws ApiError for what the batch itself refuses; the body's fields are the Api's matter.
void read_request(const Json& line, BatchRequest& request) {
  JsonFields fields(line, "");
  if (const Json* custom_id = fields.find("custom_id"); custom_id && custom_id->is_string())
    request.custom_id = custom_id->get<std::string>();
  const std::string custom_id = fields.need_text("custom_id", kMaxCustomId);
  if (custom_id.empty()) bad_field("custom_id", "is empty.");
  fields.need("method");
  fields.choice("method", {"POST"});
  fields.need("url");
  const std::string url = *fields.choice("url", {"/v1/chat/completions", "/v1/completions"});
  Json body = fields.need("body");
  fields.done();
  if (!body.is_object()) bad_field("body", cat("got ", kind_of(body), ", need an object."));
  if (const auto stream = body.find("stream"); stream != body.end() && *stream == true)
    bad_field("body.stream", "a batch has no streams.");
  if (const auto seed = body.find("seed"); seed == body.end() || seed->is_null())
    body["seed"] = seed_of(custom_id);
  request.url = url;
  request.body = dump_json(body);
}

}  // namespace

BatchRequest parse_batch_line(const std::string& text, int64_t line) {
  BatchRequest request{.line = line};
  try {
    read_request(parse_json(text, cat("line ", line)), request);
  } catch (const ApiError& error) {
    request.problem = error.what(), request.param = error.param;
  } catch (const Error& error) {
    request.problem = error.what();
  }
  if (request.custom_id.size() > kMaxCustomId) request.custom_id.clear();
  // The same line elsewhere is the same request; one without a name is known by its place.
  request.id = "batch_req_" + digits_of(request.custom_id.empty() ? cat("line ", line, "\n", text) : text);
  return request;
}

BatchInput::BatchInput(std::filesystem::path path) : path_(std::move(path)) {
  file_.open(path_, std::ios::binary);
  std::error_code ignored;
  if (!file_ || !std::filesystem::is_regular_file(path_, ignored))
    throw file_error("batch.read", path_, file_ ? EISDIR : errno);
  std::string text;
  for (int64_t line = 1;; ++line) {
    const std::streamoff offset = file_.tellg();
    if (!std::getline(file_, text)) break;
    if (is_blank(text)) continue;
    const BatchRequest request = parse_batch_line(text, line);
    if (!request.custom_id.empty()) {
      const auto [it, fresh] = line_of_custom_id_.emplace(request.custom_id, line);
      if (!fresh)
        throw Error(ErrorCode::kInvalidArgument,
                    cat("[batch.read] ", path_.string(), ": lines ", it->second, " and ", line,
                        " both have the custom_id \"", request.custom_id, "\". Make them differ."));
    }
    index_of_id_[request.id] = static_cast<int64_t>(places_.size());
    places_.push_back({.offset = offset, .line = line, .id = request.id});
  }
  if (file_.bad()) throw file_error("batch.read", path_, EIO);
}

BatchRequest BatchInput::read(size_t i) {
  std::string text;
  file_.clear();
  file_.seekg(places_[i].offset);
  if (!std::getline(file_, text)) throw file_error("batch.read", path_, EIO);
  return parse_batch_line(text, places_[i].line);
}

int64_t BatchInput::find_id(const std::string& id) const {
  const auto it = index_of_id_.find(id);
  return it == index_of_id_.end() ? -1 : it->second;
}

int64_t BatchInput::line_of_custom_id(const std::string& custom_id) const {
  const auto it = line_of_custom_id_.find(custom_id);
  return it == line_of_custom_id_.end() ? -1 : it->second;
}

std::string batch_result_line(const BatchRequest& request, const BatchResult& result) {
  Json out{{"id", request.id}};
  out["custom_id"] = request.custom_id.empty() ? Json(nullptr) : Json(request.custom_id);
  if (!request.problem.empty()) {
    out["response"] = nullptr;
    out["error"] = {{"code", "invalid_line"},
                    {"message", cat("line ", request.line, ": ", request.problem)},
                    {"param", request.param.empty() ? Json(nullptr) : Json(request.param)},
                    {"line", request.line}};
    return dump_json(out) + "\n";
  }
  Json response{{"status_code", result.status}, {"request_id", "req_" + request.id.substr(10)}};
  response["body"] = parse_json(result.body, "a response");
  out["response"] = std::move(response);
  out["error"] = nullptr;
  return dump_json(out) + "\n";
}

BatchOutput::BatchOutput(std::filesystem::path path, const BatchInput& input)
    : path_(std::move(path)), done_(input.size()) {
  std::error_code ignored;
  if (std::filesystem::equivalent(path_, input.path(), ignored))
    throw Error(ErrorCode::kInvalidArgument, cat("[batch.write] ", path_.string(),
                                                 " has the requests. Give another file for the results."));
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) throw file_error("batch.write", path_, errno);
  try {
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0)
      throw Error(ErrorCode::kUnavailable, cat("[batch.write] ", path_.string(),
                                               " is being written by another process. Wait for it."));
    read_results(input);
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

BatchOutput::~BatchOutput() {
  if (unsynced_) ::fdatasync(fd_);
  ::close(fd_);
}

void BatchOutput::read_results(const BatchInput& input) {
  const MappedFile file(path_);
  const std::string_view all = file.text();
  size_t at = 0;
  for (int64_t line = 1; at < all.size(); ++line) {
    const size_t end = all.find('\n', at);
    const std::string_view text = all.substr(at, end == std::string_view::npos ? end : end - at);
    if (end == std::string_view::npos) {
      // Only what is plainly ours is cut.
      const size_t n = std::min(text.size(), kResultBegin.size());
      if (text.substr(0, n) != kResultBegin.substr(0, n))
        throw Error(ErrorCode::kCorrupt, cat("[batch.resume] ", path_.string(), ": line ", line,
                                             " is no result of a batch. Give another file for the results."));
      if (::ftruncate(fd_, static_cast<off_t>(at)) != 0) throw file_error("batch.write", path_, errno);
      return;
    }
    if (!is_blank(text)) take_result(text, line, input);
    at = end + 1;
  }
}

void BatchOutput::take_result(std::string_view text, int64_t line, const BatchInput& input) {
  const auto refuse = [&](ErrorCode code, const std::string& what) {
    return Error(code, cat("[batch.resume] ", path_.string(), ": line ", line, " ", what));
  };
  std::string id, custom_id;
  int status = 0;
  try {
    const Json result = parse_json(text, "result");
    id = result.at("id").get<std::string>();
    if (!result.at("custom_id").is_null()) custom_id = result["custom_id"].get<std::string>();
    if (!result.at("response").is_null()) status = result["response"].at("status_code").get<int>();
  } catch (const std::exception&) {  // Error, or nlohmann's for a missing key or another type
    throw refuse(ErrorCode::kCorrupt, "is no result of a batch. Give another file for the results.");
  }
  const int64_t i = input.find_id(id);
  if (i < 0) {
    const int64_t changed = custom_id.empty() ? -1 : input.line_of_custom_id(custom_id);
    throw refuse(ErrorCode::kInvalidArgument,
                 changed < 0
                     ? cat("answers a request that is not in ", input.path().string(),
                           ". Give another file for the results.")
                     : cat("answers \"", custom_id, "\", but line ", changed, " of ", input.path().string(),
                           " has changed since. Give another file for the results."));
  }
  if (done_[static_cast<size_t>(i)]) return;
  done_[static_cast<size_t>(i)] = true;
  ++(status == 200 ? succeeded_ : failed_);
}

void BatchOutput::append(const std::string& line) {
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw file_error("batch.write", path_, n < 0 ? errno : ENOSPC);
    done += static_cast<size_t>(n);
  }
  unsynced_ = true;
  if (now_seconds() - last_sync_ >= kSyncSeconds) sync();
}

// Files that cannot be synced, such as pipes, are written all the same.
void BatchOutput::sync() {
  if (unsynced_ && ::fdatasync(fd_) != 0 && errno != EINVAL && errno != EROFS)
    throw file_error("batch.write", path_, errno);
  unsynced_ = false;
  last_sync_ = now_seconds();
}

}  // namespace hadal
