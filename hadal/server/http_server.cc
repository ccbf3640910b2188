// Beast's parser asserts what some senders can break: the last chunk's head and one byte more, cut off there,
// is "n >= 5" wrong. It goes on correctly; an assertion would end the process.
#define BOOST_DISABLE_ASSERTS

#include "hadal/server/http_server.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdio>
#include <optional>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/server/open_files.h"

namespace hadal {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr size_t kDrainBytes =
    64 << 20;  // read and dropped before closing, so that an error reaches its sender
constexpr size_t kReadBytes = 64 << 10;  // at a time; a chunk's head that is longer is refused

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return text;
}

const char* reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Payload Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

// Status for a request that could not be read; 0: nobody is there to be told.
int status_of(const error_code& error) {
  if (error == http::error::body_limit) return 413;
  if (error == http::error::header_limit || error == http::error::buffer_overflow) return 431;
  if (error == beast::error::timeout) return 0;  // the stream has closed itself
  if (error == http::error::end_of_stream || error == http::error::partial_message) return 0;
  return error.category() == http::make_error_code(http::error::bad_method).category() ? 400 : 0;
}

// The authority of an absolute target ("http://host:80/path?x"), which is cut to its path; none of another.
std::optional<std::string> split_absolute(std::string& target) {
  const std::string scheme = "http://";
  if (lower(target.substr(0, scheme.size())) != scheme) return {};
  const size_t end = std::min(target.find_first_of("/?", scheme.size()), target.size());
  const std::string authority = target.substr(scheme.size(), end - scheme.size());
  target.erase(0, end);
  if (!target.starts_with('/')) target.insert(0, "/");
  return authority;
}

bool only_chunked(const http::request_parser<http::string_body>& parser) {
  const auto& message = parser.get();
  return message.count(http::field::transfer_encoding) == 1 && message.version() == 11 &&
         lower(std::string(message[http::field::transfer_encoding])) == "chunked";
}

}  // namespace

struct HttpServer::State {
  State(const HttpConfig& config, Api& the_api, EngineThread& the_engine)
      : config(config),
        api(the_api),
        engine(the_engine),
        acceptor(io),
        timer(io),
        pause(io),
        signals(io),
        tasks(config.reader_threads, config.max_reading_bytes) {}

  void listen();
  void accept();
  void welcome(tcp::socket socket);
  bool all_sent() const;
  void tick();
  void begin_stop();
  void await_signal();
  bool host_allowed(std::string host) const;

  class Connection;

  const HttpConfig config;
  Api& api;
  EngineThread& engine;
  size_t num_connections = 0;
  std::vector<std::weak_ptr<Connection>> connections;
  asio::io_context io{1};
  tcp::acceptor acceptor;
  asio::steady_timer timer, pause;
  asio::signal_set signals;
  bool stopping = false;
  std::chrono::steady_clock::time_point stop_at;
  TaskQueue tasks;  // of the api; the last to begin and the first to end
};

// One client. Reads a request whole, hands it to the Api, writes what the Api answers, and so on.
class HttpServer::State::Connection : public std::enable_shared_from_this<Connection>, public Responder {
 public:
  Connection(State& server, tcp::socket socket)
      : server_(server),
        stream_(std::move(socket)),
        buffer_(std::max(kReadBytes, server.config.max_header_bytes)),
        look_again_(server.io) {
    ++server_.num_connections;
    server_.api.metrics.connections = static_cast<int64_t>(server_.num_connections);
  }
  ~Connection() override {
    --server_.num_connections;
    server_.api.metrics.connections = static_cast<int64_t>(server_.num_connections);
  }

  void start() { read_header(); }

  void refuse_for_load() {
    keep_alive_ = false;
    respond(503, "application/json", error_json(ApiError(503, "Too many connections. Try again later.")),
            {{"Retry-After", "1"}});
  }

  // Closes unless an answer is in progress.
  void close_if_idle() {
    keep_alive_ = false;
    if (!answering_ && !busy()) close();
  }

  // Something is still to be sent.
  bool busy() const { return !closed_ && (writing_ || !out_.empty()); }

  void close() {
    if (closed_) return;
    closed_ = true;
    look_again_.cancel();
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
    stream_.close();
    leave();
  }

  void respond(int status, const std::string& content_type, std::string body,
               const HttpHeaders& headers) override {
    ++server_.api.metrics.responses[status];
    std::string head = status_line(status);
    if (status != 204)
      head += cat("Content-Type: ", content_type, "\r\nContent-Length: ", body.size(), "\r\n");
    for (const auto& [name, value] : headers) head += cat(name, ": ", value, "\r\n");
    out_ += head + "\r\n";
    if (!head_only_) out_ += body;
    ended_ = true;
    flush();
  }

  void begin_stream(const std::string& content_type) override {
    ++server_.api.metrics.responses[200];
    chunked_ = version_ >= 11;
    if (!chunked_) keep_alive_ = false;
    out_ += status_line(200);
    out_ += cat("Content-Type: ", content_type, "\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n",
                chunked_ ? "Transfer-Encoding: chunked\r\n" : "", "\r\n");
    flush();
  }

  void send(std::string_view bytes) override {
    if (closed_) return;
    if (chunked_) {
      char size[20];
      std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
      out_ += size;
      out_ += bytes;
      out_ += "\r\n";
    } else {
      out_ += bytes;
    }
    if (out_.size() > server_.config.max_unsent_bytes) {
      asio::post(server_.io, [self = shared_from_this()] { self->close(); });
      return;
    }
    flush();
  }

  void end_stream() override {
    if (chunked_) out_ += "0\r\n\r\n";
    ended_ = true;
    flush();
  }

 private:
  static constexpr std::chrono::milliseconds kLookAgain{50};

  std::string status_line(int status) const {
    std::string out = cat("HTTP/1.", version_ % 10, " ", status, " ", reason_phrase(status), "\r\n");
    out +=
        cat("Connection: ", keep_alive_ ? "keep-alive" : "close", "\r\nX-Content-Type-Options: nosniff\r\n");
    if (!server_.config.cors_origin.empty())
      out += cat("Access-Control-Allow-Origin: ", server_.config.cors_origin, "\r\nVary: Origin\r\n");
    return out;
  }

  void read_header() {
    parser_.emplace();
    parser_->body_limit(server_.config.max_body_bytes);
    parser_->header_limit(static_cast<uint32_t>(server_.config.max_header_bytes));
    answering_ = ended_ = head_only_ = chunked_ = false;
    version_ = 11;
    keep_alive_ = true;
    stream_.expires_after(
        milliseconds(buffer_.size() > 0 ? server_.config.read_seconds : server_.config.idle_seconds));
    // The first byte starts the clock of the request: until then the connection is idle.
    http::async_read_header(
        stream_, buffer_, *parser_,
        [self = shared_from_this()](error_code error, size_t) { self->on_header(error); });
  }

  void on_header(const error_code& error) {
    if (closed_) return;
    if (error) return on_bad_request(error);
    const auto& message = parser_->get();
    version_ = message.version() >= 11 ? 11 : 10;
    keep_alive_ = message.keep_alive() && !server_.stopping;
    head_only_ = message.method() == http::verb::head;
    if (message.version() != 11 && message.version() != 10) return refuse(400, "Need HTTP/1.1 or HTTP/1.0.");
    if (message.count(http::field::transfer_encoding) > 0 && !only_chunked(*parser_))
      return refuse(400, "Transfer-Encoding: need \"chunked\", once, in HTTP/1.1.");
    if (message.count(http::field::transfer_encoding) > 0 && message.count(http::field::content_length) > 0)
      return refuse(400, "Content-Length and Transfer-Encoding exclude each other.");
    if (message.count(http::field::host) > 1 ||
        (message.version() == 11 && message.count(http::field::host) == 0))
      return refuse(400, "Need exactly one Host header.");
    target_ = std::string(message.target());
    std::optional<std::string> host = split_absolute(target_);  // stands above the header
    if (!host && message.count(http::field::host) == 1) host = std::string(message[http::field::host]);
    if (server_.config.check_host && host && !server_.host_allowed(*host))
      return refuse(403,
                    "Host: this server does not answer to that name. Start it with --allowed-host NAME.");
    if (const auto expect = message[http::field::expect]; !expect.empty()) {
      if (lower(std::string(expect)) != "100-continue") return refuse(417, "Expect: need 100-continue.");
      if (version_ >= 11 && !parser_->is_done()) {
        out_ += "HTTP/1.1 100 Continue\r\n\r\n";
        flush();
      }
    }
    stream_.expires_after(milliseconds(server_.config.read_seconds));
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](error_code e, size_t) { self->on_body(e); });
  }

  void on_body(const error_code& error) {
    if (closed_) return;
    if (error) return on_bad_request(error);
    auto message = parser_->release();
    HttpRequest request;
    request.method = std::string(message.method_string());
    request.path = std::move(target_);
    request.path.resize(std::min(request.path.find('?'), request.path.size()));
    request.authorization = std::string(message[http::field::authorization]);
    request.content_type = lower(std::string(message[http::field::content_type]));
    request.body = std::move(message.body());
    answering_ = true;
    stream_.expires_never();
    if (request.method == "OPTIONS" && !server_.config.cors_origin.empty())
      return respond(204, "text/plain", "",
                     {{"Access-Control-Allow-Methods", "GET, POST"},
                      {"Access-Control-Allow-Headers", "authorization, content-type, *"}});
    ++generation_;
    exchange_ = server_.api.handle(std::move(request), shared_from_this());
    if (exchange_) watch_for_leaving();
  }

  // The socket becomes readable when the client closes its end, or sends the next request too early. Then its
  // leaving can no longer be waited for: looked for, now and then.
  void watch_for_leaving() {
    stream_.socket().async_wait(tcp::socket::wait_read,
                                [self = shared_from_this(), generation = generation_](error_code error) {
                                  if (!error) self->look_for_leaving(generation);
                                });
  }

  void look_for_leaving(uint64_t generation) {
    if (closed_ || generation != generation_ || !exchange_) return;
    pollfd socket{stream_.socket().native_handle(), POLLIN | POLLRDHUP, 0};
    const bool any = ::poll(&socket, 1, 0) > 0;
    if (any && (socket.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) return close();
    if (!any) return watch_for_leaving();
    look_again_.expires_after(kLookAgain);
    look_again_.async_wait([self = shared_from_this(), generation](error_code error) {
      if (!error) self->look_for_leaving(generation);
    });
  }

  void on_bad_request(const error_code& error) {
    const int status = status_of(error);
    if (status == 0) return close();
    refuse(status, status == 413 ? cat("The body is larger than ", server_.config.max_body_bytes, " bytes.")
                   : status == 431
                       ? cat("The header is larger than ", server_.config.max_header_bytes, " bytes.")
                       : "This is not HTTP: " + error.message() + ".");
  }

  // Answers and closes.
  void refuse(int status, const std::string& message) {
    keep_alive_ = false;
    answering_ = true;
    respond(status, "application/json", error_json(ApiError(status, message)), {});
  }

  void leave() {
    if (!exchange_) return;
    const std::shared_ptr<Exchange> exchange = std::move(exchange_);
    exchange_.reset();
    server_.api.abandon(exchange);
  }

  void flush() {
    if (writing_ || closed_ || out_.empty()) return;
    writing_ = true;
    sending_.swap(out_);
    out_.clear();
    stream_.expires_after(milliseconds(server_.config.write_seconds));
    stream_.async_write_some(asio::buffer(sending_),
                             [self = shared_from_this()](error_code e, size_t n) { self->on_written(e, n); });
  }

  // Each piece that goes out starts the time-out anew.
  void on_written(const error_code& error, size_t n) {
    if (closed_) return;
    if (error) return close();
    sent_ += n;
    if (sent_ < sending_.size()) {
      stream_.expires_after(milliseconds(server_.config.write_seconds));
      stream_.async_write_some(
          asio::buffer(sending_.data() + sent_, sending_.size() - sent_),
          [self = shared_from_this()](error_code e, size_t m) { self->on_written(e, m); });
      return;
    }
    sent_ = 0;
    sending_.clear();
    writing_ = false;
    if (!out_.empty()) return flush();
    if (!ended_) return stream_.expires_never();
    exchange_.reset();
    if (keep_alive_ && !server_.stopping) return read_header();
    linger();
  }

  // Says that nothing more comes, and reads on for a while: closing with unread bytes would reset the
  // connection before its client has read the answer.
  void linger() {
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    stream_.expires_after(std::chrono::seconds(2));
    drop_input();
  }

  void drop_input() {
    dropped_.resize(16 << 10);
    stream_.async_read_some(asio::buffer(dropped_), [self = shared_from_this()](error_code error, size_t n) {
      self->num_dropped_ += n;
      if (error || self->num_dropped_ > kDrainBytes) return self->close();
      self->drop_input();
    });
  }

  State& server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::shared_ptr<Exchange> exchange_;
  std::string target_;  // of the request, in origin form
  asio::steady_timer look_again_;
  uint64_t generation_ = 0;
  unsigned version_ = 11;
  bool keep_alive_ = true, head_only_ = false, chunked_ = false;
  bool answering_ = false;  // a request was read and is not answered
  bool ended_ = false;      // its answer is whole, perhaps not yet sent
  bool writing_ = false, closed_ = false;
  std::string out_, sending_;
  size_t sent_ = 0;  // of sending_
  std::vector<char> dropped_;
  size_t num_dropped_ = 0;
};

void HttpServer::State::listen() {
  error_code error;
  const auto address = asio::ip::make_address(config.address, error);
  if (error)
    throw Error(ErrorCode::kInvalidArgument, cat("[server.listen] \"", config.address,
                                                 "\" is not an IP address. Give one, such as 127.0.0.1."));
  const auto check = [&](const char* what) {
    if (error)
      throw Error(ErrorCode::kUnavailable,
                  cat("[server.listen] cannot ", what, " ", config.address, ":", config.port, ": ",
                      error.message(), ". Choose another with --port."));
  };
  const tcp::endpoint endpoint(address, config.port);
  acceptor.open(endpoint.protocol(), error);
  check("open");
  acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  acceptor.bind(endpoint, error);
  check("bind");
  acceptor.listen(1024, error);
  check("listen on");
}

void HttpServer::State::accept() {
  acceptor.async_accept([this](error_code error, tcp::socket socket) {
    if (!acceptor.is_open()) return;
    if (!error) {
      accept();
      return welcome(std::move(socket));
    }
    // Out of descriptors: try again when some may be free.
    pause.expires_after(std::chrono::milliseconds(50));
    pause.async_wait([this](error_code) {
      if (acceptor.is_open()) accept();
    });
  });
}

void HttpServer::State::welcome(tcp::socket socket) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  const auto connection = std::make_shared<Connection>(*this, std::move(socket));
  connections.push_back(connection);
  if (num_connections > config.max_connections)
    connection->refuse_for_load();
  else
    connection->start();
}

bool HttpServer::State::all_sent() const {
  return std::none_of(connections.begin(), connections.end(), [](const auto& weak) {
    const auto connection = weak.lock();
    return connection && connection->busy();
  });
}

void HttpServer::State::tick() {
  timer.expires_after(std::chrono::milliseconds(stopping ? 50 : 1000));
  timer.async_wait([this](error_code error) {
    if (error) return;
    api.tick();
    std::erase_if(connections, [](const auto& c) { return c.expired(); });
    const bool done = api.num_exchanges() == 0 && all_sent();
    if (stopping && (done || std::chrono::steady_clock::now() >= stop_at)) return io.stop();
    tick();
  });
}

void HttpServer::State::begin_stop() {
  if (stopping) return io.stop();
  stopping = true;
  stop_at = std::chrono::steady_clock::now() + milliseconds(config.drain_seconds);
  api.drain();
  error_code ignored;
  acceptor.close(ignored);
  for (const auto& weak : connections)
    if (const auto connection = weak.lock()) connection->close_if_idle();
  timer.cancel();
  tick();
}

void HttpServer::State::await_signal() {
  signals.async_wait([this](error_code error, int) {
    if (error) return;
    begin_stop();
    await_signal();
  });
}

bool HttpServer::State::host_allowed(std::string host) const {
  host = lower(std::move(host));
  const size_t colon = host.rfind(':'), bracket = host.rfind(']');
  if (colon != std::string::npos && (bracket == std::string::npos || colon > bracket)) host.resize(colon);
  if (host == "localhost" || host == "127.0.0.1" || host == "[::1]" || host == config.address ||
      host == "[" + config.address + "]")
    return true;
  for (const std::string& allowed : config.allowed_hosts)
    if (host == lower(allowed)) return true;
  return false;
}

HttpServer::HttpServer(const HttpConfig& config, Api& api, EngineThread& engine)
    : state_(std::make_unique<State>(config, api, engine)) {
  raise_open_files();
  state_->listen();
  api.work_on(state_->tasks,
              [state = state_.get()](std::function<void()> work) { asio::post(state->io, std::move(work)); });
  engine.start([state = state_.get()](std::vector<JobEvent> events) {
    asio::post(state->io,
               [state, events = std::move(events)]() mutable { state->api.deliver(std::move(events)); });
  });
}

HttpServer::~HttpServer() {
  state_->engine.stop();  // no more events
  state_->tasks.stop();
  state_->api.abandon_all();  // it holds connections
}

uint16_t HttpServer::port() const {
  error_code ignored;
  return state_->acceptor.local_endpoint(ignored).port();
}

std::string HttpServer::url() const {
  const std::string& address = state_->config.address;
  return cat("http://", address.find(':') == std::string::npos ? address : "[" + address + "]", ":", port());
}

void HttpServer::run() {
  if (state_->config.handle_signals) {
    state_->signals.add(SIGINT);
    state_->signals.add(SIGTERM);
    state_->await_signal();
  }
  state_->accept();
  state_->tick();
  while (!state_->io.stopped()) {
    try {
      state_->io.run();
    } catch (
        const std::exception& error) {  // out of memory: the connection at fault is gone, the others go on
      std::fprintf(stderr, "[server] a connection was dropped: %s\n", error.what());
    }
  }
}

void HttpServer::stop() {
  asio::post(state_->io, [this] { state_->begin_stop(); });
}

}  // namespace hadal
