#include "hadal/server/http_load.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cmath>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "hadal/base/clock.h"
#include "hadal/base/json.h"
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

std::chrono::microseconds microseconds(double seconds) {
  return std::chrono::microseconds(static_cast<int64_t>(seconds * 1e6));
}

std::string request_text(const LoadTarget& target, const std::string& body) {
  return cat("POST ", target.path, "/v1/completions HTTP/1.1\r\nHost: ", target.host, ":", target.port,
             "\r\nContent-Type: application/json\r\nContent-Length: ", body.size(), "\r\n",
             target.api_key.empty() ? "" : "Authorization: Bearer " + target.api_key + "\r\n", "\r\n", body);
}

std::vector<tcp::endpoint> resolve(asio::io_context& io, const LoadTarget& target) {
  error_code error;
  const auto found = tcp::resolver(io).resolve(target.host, target.port, error);
  if (error)
    throw Error(ErrorCode::kUnavailable, cat("[load.resolve] ", target.host, ":", target.port, ": ",
                                             error.message(), ". Check the URL."));
  std::vector<tcp::endpoint> endpoints;
  for (const auto& entry : found) endpoints.push_back(entry.endpoint());
  return endpoints;
}

class Load;

// One connection, one request after another.
class Client : public std::enable_shared_from_this<Client> {
 public:
  explicit Client(Load& load);
  void ask(RequestRecord record);  // of which body and due are set

 private:
  using Parser = http::response_parser<http::string_body>;
  void connect();
  void send();
  void receive();
  void on_some(const error_code& error);
  void take_body();
  void take_event(std::string_view json);
  void take_answer(const Json& json);
  void finish();

  Load& load_;
  beast::tcp_stream stream_;
  asio::steady_timer leaving_;
  beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  RequestRecord record_;
  std::string request_, events_;
  bool connected_ = false, reused_ = false, over_ = true;
  int64_t chunks_ = 0;
};

// Sends or reads a byte at a time, for as long as the load lasts.
class SlowClient : public std::enable_shared_from_this<SlowClient> {
 public:
  SlowClient(Load& load, bool reads);
  void start();

 private:
  void wait();
  void step();
  void again();

  Load& load_;
  const bool reads_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  std::string request_;
  size_t sent_ = 0;
  char byte_ = 0;
};

class Load {
 public:
  Load(const LoadTarget& the_target, const LoadPlan& the_plan, const std::atomic<bool>* interrupt)
      : target(the_target),
        plan(the_plan),
        endpoints(resolve(io, the_target)),
        random(the_plan.seed),
        interrupt_(interrupt),
        arrival_(io),
        watch_(io) {}

  LoadOutcome run() {
    for (int64_t i = 0; i < plan.slow_clients; ++i) std::make_shared<SlowClient>(*this, i % 2 == 0)->start();
    if (plan.slow_clients > 0) io.run_for(microseconds(plan.slow_warm_seconds));
    io.restart();
    began = now_seconds();
    watch();
    if (plan.rate > 0) {
      arrive(0);
    } else {
      for (int64_t i = 0; i < plan.streams; ++i) begin_request(std::make_shared<Client>(*this), now());
    }
    io.run();
    return {.records = std::move(records), .seconds = ended_arrivals_, .slow_answers = slow_answers};
  }

  double now() const { return now_seconds() - began; }
  bool more() const {
    return now() < plan.seconds && !(interrupt_ && *interrupt_) &&
           (plan.requests == 0 || begun_ < plan.requests);
  }

  void ended(const std::shared_ptr<Client>& client, RequestRecord record) {
    records.push_back(std::move(record));
    --running_;
    if (plan.rate == 0) {
      // A refusal is not asked again at once, or the refused would be all there is.
      if (records.back().status == 200 || records.back().left) return begin_request(client, now());
      auto pause = std::make_shared<asio::steady_timer>(io, std::chrono::milliseconds(100));
      return pause->async_wait([this, client, pause](error_code) { begin_request(client, now()); });
    }
    if (connected_.size() < 4096) connected_.push_back(client);
  }

  asio::io_context io{1};
  const LoadTarget& target;
  const LoadPlan& plan;
  const std::vector<tcp::endpoint> endpoints;
  std::mt19937_64 random;
  double began = 0;
  std::vector<RequestRecord> records;
  int64_t slow_answers = 0;

 private:
  void begin_request(const std::shared_ptr<Client>& client, double due) {
    if (!more()) return;
    ++begun_, ++running_;
    client->ask({.body = (begun_ - 1) % static_cast<int64_t>(plan.bodies.size()), .due = due});
  }

  // The next arrival's moment is drawn from the last one's, however late this comes.
  void arrive(double due) {
    arrival_.expires_after(microseconds(std::max(0.0, due - now())));
    arrival_.async_wait([this, due](error_code) {
      if (!more()) return;
      std::shared_ptr<Client> client;
      if (connected_.empty()) {
        client = std::make_shared<Client>(*this);
      } else {
        client = std::move(connected_.back());
        connected_.pop_back();
      }
      begin_request(client, due);
      arrive(due + std::exponential_distribution<double>(plan.rate)(random));
    });
  }

  // Ends the loop when all is over.
  void watch() {
    watch_.expires_after(std::chrono::milliseconds(10));
    watch_.async_wait([this](error_code) {
      if (more()) return watch();
      if (ended_arrivals_ == 0) ended_arrivals_ = now();
      if (running_ == 0 || (interrupt_ && *interrupt_)) return io.stop();
      watch();
    });
  }

  const std::atomic<bool>* interrupt_;
  asio::steady_timer arrival_, watch_;
  std::vector<std::shared_ptr<Client>> connected_;
  int64_t begun_ = 0, running_ = 0;
  double ended_arrivals_ = 0;
};

Client::Client(Load& load) : load_(load), stream_(load.io), leaving_(load.io) {}

void Client::ask(RequestRecord record) {
  record_ = std::move(record);
  request_ = request_text(load_.target, load_.plan.bodies[static_cast<size_t>(record_.body)]);
  events_.clear();
  over_ = false;
  chunks_ = 0;
  reused_ = connected_;
  if (load_.plan.leave) {
    leaving_.expires_after(
        microseconds(std::uniform_real_distribution<double>(0, load_.plan.leave_seconds)(load_.random)));
    leaving_.async_wait([self = shared_from_this()](error_code error) {
      if (error || self->over_) return;
      self->record_.left = true;
      self->finish();
    });
  }
  connected_ ? send() : connect();
}

void Client::connect() {
  stream_.expires_after(microseconds(load_.plan.timeout_seconds));
  stream_.async_connect(load_.endpoints, [self = shared_from_this()](error_code error, const tcp::endpoint&) {
    if (self->over_) return;
    if (error) return self->finish();
    self->stream_.socket().set_option(tcp::no_delay(true), error);
    self->connected_ = true;
    self->send();
  });
}

void Client::send() {
  parser_.emplace();
  parser_->body_limit(uint64_t{1} << 40);
  buffer_.clear();
  stream_.expires_after(microseconds(load_.plan.timeout_seconds));
  asio::async_write(stream_, asio::buffer(request_), [self = shared_from_this()](error_code error, size_t) {
    if (self->over_) return;
    if (error) return self->on_some(error);
    self->receive();
  });
}

void Client::receive() {
  // The parser is not eager: an eager one would return when the whole answer is there.
  http::async_read_some(stream_, buffer_, *parser_,
                        [self = shared_from_this()](error_code e, size_t) { self->on_some(e); });
}

void Client::on_some(const error_code& error) {
  if (over_) return;
  if (error && reused_ && !parser_->got_some()) {  // the server had closed the idle connection
    reused_ = connected_ = false;
    stream_.close();
    return connect();
  }
  if (parser_->is_header_done()) record_.status = static_cast<int>(parser_->get().result_int());
  if (error) return finish();
  take_body();
  parser_->is_done() ? finish() : receive();
}

void Client::take_body() {
  if (!parser_->is_header_done() || record_.status != 200) return;
  std::string& body = parser_->get().body();
  if (!load_.plan.stream) {
    if (!parser_->is_done()) return;
    record_.first = record_.last = load_.now();
    try {
      const Json json = parse_json(body, "answer");
      take_answer(json);
      record_.whole = true;
    } catch (const std::exception&) {  // not the answer of such a server: lost
    }
    return;
  }
  events_ += body;
  body.clear();
  size_t at = 0;
  for (size_t end; (end = events_.find('\n', at)) != std::string::npos; at = end + 1) {
    std::string_view line = std::string_view(events_).substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("data: ")) take_event(line.substr(6));
  }
  events_.erase(0, at);
}

void Client::take_event(std::string_view json) {
  if (json == "[DONE]") {
    record_.whole = chunks_ > 0;
    return;
  }
  try {
    const Json event = parse_json(json, "event");
    if (event.contains("error")) record_.status = 500;
    take_answer(event);
    if (!event.contains("choices") || event["choices"].empty()) return;
    ++chunks_;
    record_.last = load_.now();
    if (record_.first == 0) record_.first = record_.last;
  } catch (const std::exception&) {
    record_.status = 500;
  }
}

void Client::take_answer(const Json& json) {
  if (const auto usage = json.find("usage"); usage != json.end() && usage->is_object()) {
    record_.prompt_tokens = usage->value("prompt_tokens", int64_t{0});
    record_.tokens = usage->value("completion_tokens", int64_t{0});
  }
  if (!load_.plan.keep_text || !json.contains("choices")) return;
  for (const Json& choice : json["choices"])
    if (choice.contains("text")) record_.text += choice["text"].get<std::string>();
}

void Client::finish() {
  over_ = true;
  leaving_.cancel();
  record_.end = load_.now();
  if (record_.tokens == 0) record_.tokens = chunks_;  // of a server that does not count them
  const bool keep = parser_ && parser_->is_done() && parser_->get().keep_alive() && !record_.left;
  if (!keep) {
    connected_ = false;
    stream_.close();
  } else {
    stream_.expires_never();
  }
  // Not from within: the next request may begin at once.
  asio::post(load_.io, [self = shared_from_this()] { self->load_.ended(self, std::move(self->record_)); });
}

SlowClient::SlowClient(Load& load, bool reads)
    : load_(load),
      reads_(reads),
      socket_(load.io),
      timer_(load.io),
      request_(request_text(load.target, load.plan.bodies[0])) {}

void SlowClient::start() {
  socket_ = tcp::socket(load_.io);
  sent_ = 0;
  error_code ignored;
  socket_.open(load_.endpoints[0].protocol(), ignored);
  if (reads_) socket_.set_option(asio::socket_base::receive_buffer_size(2048), ignored);
  socket_.async_connect(load_.endpoints[0], [self = shared_from_this()](error_code error) {
    if (error) return self->again();
    if (!self->reads_) return self->wait();
    asio::async_write(self->socket_, asio::buffer(self->request_),
                      [self](error_code e, size_t) { e ? self->again() : self->wait(); });
  });
}

void SlowClient::wait() {
  timer_.expires_after(microseconds(load_.plan.slow_seconds));
  timer_.async_wait([self = shared_from_this()](error_code) { self->step(); });
}

void SlowClient::step() {
  const auto next = [self = shared_from_this()](error_code error, size_t n) {
    if (error) return self->again();
    self->reads_ ? self->load_.slow_answers += static_cast<int64_t>(n)
                 : static_cast<int64_t>(self->sent_ += n);
    self->wait();
  };
  if (reads_)
    socket_.async_read_some(asio::buffer(&byte_, 1), next);
  else if (sent_ < request_.size())
    socket_.async_write_some(asio::buffer(request_.data() + sent_, 1), next);
  else
    socket_.async_read_some(asio::buffer(&byte_, 1), next);
}

// The server closes those that are too slow; they come back.
void SlowClient::again() {
  error_code ignored;
  socket_.close(ignored);
  timer_.expires_after(std::chrono::seconds(1));
  timer_.async_wait([self = shared_from_this()](error_code) { self->start(); });
}

}  // namespace

LoadTarget load_target(const std::string& url) {
  const std::string scheme = "http://";
  const auto refuse = [&] {
    return Error(ErrorCode::kInvalidArgument,
                 cat("[load.url] got \"", url, "\", need http://HOST:PORT, such as http://127.0.0.1:8000."));
  };
  if (!url.starts_with(scheme)) throw refuse();
  const size_t slash = std::min(url.find('/', scheme.size()), url.size());
  const std::string authority = url.substr(scheme.size(), slash - scheme.size());
  LoadTarget target{.path = url.substr(slash)};
  while (target.path.ends_with('/')) target.path.pop_back();
  if (target.path.ends_with("/v1")) target.path.resize(target.path.size() - 3);
  const size_t colon = authority.rfind(':');
  target.host = authority.substr(0, colon);
  target.port = colon == std::string::npos ? "80" : authority.substr(colon + 1);
  if (target.host.empty() || target.port.empty() ||
      target.port.find_first_not_of("0123456789") != std::string::npos)
    throw refuse();
  return target;
}

LoadOutcome run_load(const LoadTarget& target, const LoadPlan& plan, const std::atomic<bool>* interrupt) {
  raise_open_files();
  return Load(target, plan, interrupt).run();
}

std::string http_get(const LoadTarget& target, const std::string& path) {
  asio::io_context io{1};
  tcp::socket socket(io);
  error_code error;
  asio::connect(socket, resolve(io, target), error);
  if (error)
    throw Error(ErrorCode::kUnavailable, cat("[load.connect] ", target.host, ":", target.port, ": ",
                                             error.message(), ". Start the server first."));
  const std::string request =
      cat("GET ", target.path, path, " HTTP/1.1\r\nHost: ", target.host, ":", target.port,
          "\r\nConnection: close\r\n",
          target.api_key.empty() ? "" : "Authorization: Bearer " + target.api_key + "\r\n", "\r\n");
  asio::write(socket, asio::buffer(request), error);
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(uint64_t{1} << 30);
  http::read(socket, buffer, parser, error);
  return error || parser.get().result_int() != 200 ? "" : parser.get().body();
}

}  // namespace hadal
