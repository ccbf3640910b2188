// A file of requests answered without a server: the Api's routes over an engine thread, no sockets.
#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>

#include "hadal/server/api.h"

namespace hadal {

struct BatchCounts {
  int64_t lines = 0;                             // of requests
  int64_t earlier = 0;                           // answered by an earlier run; among the next two
  int64_t succeeded = 0, failed = 0;             // failed: another status than 200, or no request at all
  int64_t prompt_tokens = 0, answer_tokens = 0;  // of this run
  bool interrupted = false;
};

struct BatchOptions {
  int64_t in_flight = 128;                           // requests given to the engine at the same time
  const std::atomic<bool>* interrupt = nullptr;      // true: ends soon; requests in flight stay unanswered
  std::function<void(const BatchCounts&)> progress;  // after results, and ten times a second
};

// Answers the lines of `requests` that `results` has no result for. `engine` has not been started; its queue
// must have room for `in_flight` requests. Throws what BatchInput and BatchOutput throw.
BatchCounts run_batch(const std::filesystem::path& requests, const std::filesystem::path& results, Api& api,
                      EngineThread& engine, const BatchOptions& options);

}  // namespace hadal
