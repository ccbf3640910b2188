// Load for a server that speaks the OpenAI API, and what became of each request. Behind it is Boost, in
// http_load.cc alone. Times are seconds since the load began.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace hadal {

struct LoadTarget {
  std::string host, port;  // "127.0.0.1", "8000"
  std::string path;        // before "/v1/completions": "" mostly
  std::string api_key;     // "": none
};
// Of "http://host:port/path". Throws invalid_argument.
LoadTarget load_target(const std::string& url);

struct LoadPlan {
  std::vector<std::string> bodies;  // of requests to /v1/completions, used in turn
  bool stream = true;               // as the bodies say
  int64_t streams = 8;              // at the same time, each a request after another; with rate 0
  double rate = 0;                  // > 0: arrivals a second, at random distances (Poisson)
  double seconds = 10;              // new requests begin within
  int64_t requests = 0;             // at most; 0: any number
  double timeout_seconds = 120;     // of one request; then it is lost
  uint64_t seed = 0;                // of the arrivals and of the moments at which clients leave
  bool keep_text = false;
  bool leave = false;            // each client leaves at a random moment within leave_seconds
  double leave_seconds = 0.1;    //
  int64_t slow_clients = 0;      // beside the others: half send, half read, a byte at a time
  double slow_seconds = 0;       // between two bytes
  double slow_warm_seconds = 0;  // before the load begins
};

struct RequestRecord {
  int64_t body = 0;            // index
  double due = 0;              // when it was to begin: what waited in the client counts
  double first = 0, last = 0;  // news of the answer
  double end = 0;
  int status = 0;      // 0: no response
  bool whole = false;  // the answer came to its end
  bool left = false;   // on purpose
  int64_t prompt_tokens = 0, tokens = 0;
  std::string text;  // with keep_text

  bool answered() const { return status == 200 && whole; }
  bool rejected() const { return status == 429 || status == 503; }
  double first_seconds() const { return first - due; }
  double token_seconds() const { return tokens > 1 ? (last - first) / static_cast<double>(tokens - 1) : 0; }
};

struct LoadOutcome {
  std::vector<RequestRecord> records;
  double seconds = 0;        // in which requests began
  int64_t slow_answers = 0;  // bytes read by slow clients
};

// Returns when all requests have ended. *interrupt ends it soon.
LoadOutcome run_load(const LoadTarget& target, const LoadPlan& plan,
                     const std::atomic<bool>* interrupt = nullptr);

// One GET: the body, "" if there is none with status 200.
std::string http_get(const LoadTarget& target, const std::string& path);

}  // namespace hadal
