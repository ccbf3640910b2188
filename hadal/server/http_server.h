// HTTP/1.1 in front of an Api: sockets, limits, time-outs, clients that leave. Boost is behind it, in
// http_server.cc (and in http_load.cc) alone.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hadal/server/api.h"

namespace hadal {

struct HttpConfig {
  std::string address = "127.0.0.1";
  uint16_t port = 8000;                    // 0: any free one
  std::vector<std::string> allowed_hosts;  // of the Host header, beside the address and localhost
  bool check_host = true;                  // against pages of other sites that resolve to this address
  std::string cors_origin;                 // "": none is allowed
  size_t max_body_bytes = 8 << 20;
  size_t max_header_bytes = 16 << 10;
  size_t max_connections = 4096;
  size_t max_unsent_bytes = 16 << 20;   // of a stream whose client reads too slowly; then it is ended
  double read_seconds = 30;             // for a whole request once it has begun
  double idle_seconds = 75;             // between requests of a connection
  double write_seconds = 60;            // without progress
  bool handle_signals = false;          // SIGINT and SIGTERM call stop()
  double drain_seconds = 30;            // for answers in progress when the server is told to stop
  int reader_threads = 2;               // that read bodies: JSON, tokens, schemas
  size_t max_reading_bytes = 64 << 20;  // of all bodies that wait for them
};

class HttpServer {
 public:
  // Binds and listens. Throws unavailable (port in use, no permission), invalid_argument (not an address).
  HttpServer(const HttpConfig& config, Api& api, EngineThread& engine);
  ~HttpServer();

  uint16_t port() const;
  std::string url() const;

  // Serves until stop(); the calling thread is the one of the sockets.
  void run();
  // Any thread or signal handler's thread: takes no new connections, lets answers finish (drain_seconds),
  // then run() returns. A second call ends at once.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
