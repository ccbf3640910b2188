// A raw socket and a server in the same process, for tests of HTTP that must send what no library would.
#pragma once
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "hadal/base/clock.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/server/http_server.h"
#include "tests/support/server_model.h"

namespace hadal {

struct HttpReply {
  int status = 0;                              // 0: the connection ended without an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  bool whole = false;
};

class HttpClient {
 public:
  explicit HttpClient(uint16_t port, int receive_bytes = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const timeval limit{60, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (receive_bytes > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~HttpClient() { close(); }
  HttpClient(const HttpClient&) = delete;

  bool connected() const { return connected_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void half_close() { ::shutdown(fd_, SHUT_WR); }

  bool send(std::string_view bytes) {  // false: the server has closed
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // The next answer; interim ones (100) are skipped and counted.
  HttpReply read(bool head = false) {
    HttpReply reply = read_head();
    while (reply.status == 100) ++num_continues, reply = read_head();
    if (reply.status == 0 || head || reply.status == 204) return reply;
    if (reply.headers.contains("content-length")) {
      const size_t size = std::stoul(reply.headers["content-length"]);
      reply.whole = fill(size);
      reply.body = take(std::min(size, held_.size()));
    } else if (reply.headers.contains("transfer-encoding")) {
      reply.whole = read_chunks(reply.body);
    } else {
      while (more()) {
      }
      reply.body = take(held_.size());
      reply.whole = true;
    }
    return reply;
  }
  HttpReply request(std::string_view bytes) {
    send(bytes);
    return read();
  }
  // Nothing more comes and the connection is closed.
  bool at_end() { return held_.empty() && !more(); }
  bool more() {  // false: the end, or no byte in a minute
    char buffer[16384];
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    held_.append(buffer, static_cast<size_t>(n));
    return true;
  }
  const std::string& held() const { return held_; }

  int num_continues = 0;

 private:
  bool fill(size_t size) {
    while (held_.size() < size)
      if (!more()) return false;
    return true;
  }
  std::string take(size_t n) {
    std::string out = held_.substr(0, n);
    held_.erase(0, n);
    return out;
  }
  std::optional<std::string> line() {
    size_t end;
    while ((end = held_.find("\r\n")) == std::string::npos)
      if (!more()) return {};
    std::string out = take(end);
    take(2);
    return out;
  }
  HttpReply read_head() {
    HttpReply reply;
    const std::optional<std::string> first = line();
    if (!first) return reply;
    EXPECT_TRUE(first->starts_with("HTTP/1.") && first->size() > 12) << *first;
    if (first->size() <= 12) return reply;
    reply.status = std::atoi(first->c_str() + 9);
    while (const std::optional<std::string> field = line()) {
      if (field->empty()) break;
      const size_t colon = field->find(": ");
      std::string name = field->substr(0, colon);
      for (char& c : name) c = static_cast<char>(std::tolower(c));
      reply.headers[name] = colon == std::string::npos ? "" : field->substr(colon + 2);
    }
    return reply;
  }
  bool read_chunks(std::string& body) {
    while (const std::optional<std::string> size_line = line()) {
      const size_t size = std::stoul(*size_line, nullptr, 16);
      if (!fill(size + 2)) return false;
      body += take(size);
      take(2);
      if (size == 0) return true;
    }
    return false;
  }

  int fd_;
  bool connected_ = false;
  std::string held_;
};

inline std::string get_request(const std::string& path, const std::string& more = "") {
  return cat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\n", more, "\r\n");
}
inline std::string post_request(const std::string& path, const std::string& body,
                                const std::string& more = "") {
  return cat("POST ", path,
             " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ",
             body.size(), "\r\n", more, "\r\n", body);
}

// The server over the small model "tiny", running in a thread of its own.
class RunningServer {
 public:
  explicit RunningServer(HttpConfig http = {}, ApiConfig config = {}, const QueueLimits& limits = {})
      : engine_(small_engine(), limits),
        api_(named(std::move(config)), engine_),
        server_(any_port(std::move(http)), api_, engine_),
        port_(server_.port()),
        thread_([this] {
          server_.run();
          ended_ = true;
        }) {}
  ~RunningServer() {
    server_.stop();
    server_.stop();
    thread_.join();
  }

  uint16_t port() const { return port_; }
  EngineThread& engine() { return engine_; }
  HttpServer& server() { return server_; }
  bool ended() const { return ended_; }

  HttpReply get(const std::string& path) { return HttpClient(port_).request(get_request(path)); }
  HttpReply post(const std::string& path, const std::string& body) {
    return HttpClient(port_).request(post_request(path, body));
  }
  // No job is left and no page is held.
  bool comes_to_rest(double seconds = 60) {
    const double give_up = now_seconds() + seconds;
    while (engine_.jobs() > 0 || engine_.stats().pages_used > 0 || engine_.stats().running > 0) {
      if (now_seconds() > give_up) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

 private:
  static ApiConfig named(ApiConfig config) {
    config.model = "tiny", config.chat_template = "v3";
    return config;
  }
  static HttpConfig any_port(HttpConfig config) {
    config.port = 0;
    return config;
  }
  EngineThread engine_;
  Api api_;
  HttpServer server_;
  uint16_t port_;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace hadal
