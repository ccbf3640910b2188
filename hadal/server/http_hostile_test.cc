// What no honest client sends. Messages come from a seeded grammar that knows the answer each must get; after
// every batch the server must answer a good request.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/support/http_client.h"
#include "tests/support/wrong_requests.h"

namespace hadal {
namespace {

constexpr size_t kMaxBody = 256 << 10, kMaxHeader = 16 << 10;

struct Message {
  std::string kind;
  std::string bytes;
  std::vector<int> statuses;   // any of these; 0: closed without an answer
  std::vector<size_t> cuts{};  // sent in parts
};

// Draws of one message.
class Dice {
 public:
  explicit Dice(uint64_t seed) : seed_(seed) {}
  uint32_t below(size_t n) { return philox(seed_, 9, next_++)[0] % static_cast<uint32_t>(n); }
  std::string one_of(const std::vector<std::string>& list) { return list[below(list.size())]; }
  char bad_byte() { return "\x01\x02\x0b\x1b\x7f"[below(5)]; }

 private:
  uint64_t seed_, next_ = 0;
};

std::string insert(std::string text, size_t at, const std::string& what) {
  return text.insert(std::min(at, text.size()), what);
}

const std::string kBody = R"({"prompt": "a", "max_tokens": 1})";

std::string post_with(const std::string& framing, const std::string& body) {
  return cat("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n", framing, "\r\n", body);
}
std::string good_message(Dice& dice) {
  return dice.below(2) ? get_request(dice.one_of({"/health", "/v1/models", "/ready"}))
                       : post_request("/tokenize", kBody);
}

Message bad_method(Dice& d) {
  const std::string rest = " /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
  if (d.below(3) == 0)
    return {
        "method", d.one_of({"get", "PATCH", "BREW", "TRACE", "OPTIONS", "M-SEARCH", "G!T"}) + rest, {405}};
  std::string method = d.one_of({"GET", "POST", "DELETE"});
  method = insert(method, d.below(4),
                  d.one_of({"(", ")", "\"", "\x80", "é", "{", ":", "@", "\x7f", "\t", std::string(1, '\0')}));
  return {"method", d.below(8) ? method + rest : rest, {400}};
}

Message bad_target(Dice& d) {
  const std::string path = d.one_of({"/health", "/v1/models", "/"});
  const auto get = [](const std::string& target) {
    return cat("GET ", target, " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  };
  switch (d.below(5)) {
    case 0:
      return {"target", get(""), {400}};
    case 1:
      return {"target", get(insert(path, d.below(path.size() + 1), std::string(1, d.bad_byte()))), {400}};
    case 2:
      return {"target", get(insert(path, d.below(path.size() + 1), std::string(1, '\0'))), {400}};
    case 3:
      return {"target", get(path + d.one_of({" x", " /", "\tx", "  "})), {400}};
    default:
      return {"target",
              get(d.one_of({"health", "*", "//health", "/health/", "/../etc/passwd", "/%00", "/%zz",
                            "/v1%2fmodels", "/HEALTH", "https://localhost/health", "/.", "localhost:80",
                            "/v1/models/../../health"})),
              {404}};
  }
}

Message bad_version(Dice& d) {
  return {"version",
          cat("GET /health",
              d.one_of({" HTTP/0.9", " HTTP/1.2", " HTTP/2.0", " HTTP/3", " HTTP/1", " HTTP/11", " http/1.1",
                        " HTP/1.1", "", " ", " HTTP/1.1 ", " HTTP/1.1\t", " HTTP/-1.1", " HTTP/1.1x",
                        " HTTP/x.y", " HTTP//1.1", " ICY", " HTTP/01.1", " HTTP/1.10"}),
              "\r\nHost: localhost\r\n\r\n"),
          {400}};
}

Message bad_header(Dice& d) {
  const std::string line =
      d.one_of({"NoColon", "Name : x", ": empty", "Na me: x", "N(ame: x", "N\x01me: x", "Name\t: x",
                "Nam\xc3\xa9: x", "X: a\x01z", "X: a\x7fz", std::string("X: a\0z", 6),
                std::string("X\0: a", 5), "X: a\rb", "X: a\nY: b", "\"X\": a", "X: \x1b[0m", "{}"});
  const std::string message =
      cat("GET /health HTTP/1.1\r\n",
          d.below(2) ? "Host: localhost\r\n" + line : line + "\r\nHost: localhost", "\r\n\r\n");
  return {"header " + line, message, {400}};
}

Message bad_line(Dice& d) {
  switch (d.below(5)) {
    case 0:
      return {"bare LF", "GET /health HTTP/1.1\nHost: localhost\n\n", {400, 0}};
    case 1:
      return {"bare CR", "GET /health HTTP/1.1\rHost: localhost\r\r", {400, 0}};
    case 2:
      return {"folded first line", "GET /health HTTP/1.1\r\n Host: localhost\r\n\r\n", {400}};
    case 3:  // read as one line, as the older standard says, or refused
      return {"folded",
              cat("GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n", d.one_of({" ", "\t"}), "b\r\n\r\n"),
              {200, 400}};
    default:
      return {"blank lines first", d.one_of({"\r\n", "\r\n\r\n"}) + get_request("/health"), {200, 400}};
  }
}

Message bad_length(Dice& d) {
  const std::string n = cat(kBody.size());
  if (d.below(4) == 0)
    return {"too long",
            post_with("Content-Length: " +
                          d.one_of({"262145", "4294967296", "9223372036854775807", "18446744073709551615"}) +
                          "\r\n",
                      kBody),
            {413}};
  if (d.below(4) == 0)
    return {
        "two lengths",
        post_with(cat("Content-Length: ", n, "\r\nContent-Length: ", kBody.size() + 1 + d.below(9), "\r\n"),
                  kBody),
        {400}};
  const std::string value =
      d.one_of({"-1", "+" + n, n + " 5", "5, 6", "abc", "", " ", "0x20", "99999999999999999999", n + ".0",
                "1e2", n + ",", "," + n, n + "\x01", "٣٢", "\"" + n + "\"", n + "a", "- 1"});
  return {"length " + value, post_with(cat("Content-Length: ", value, "\r\n"), kBody), {400}};
}

Message bad_encoding(Dice& d) {
  const std::string chunked = cat("20\r\n", kBody, "\r\n0\r\n\r\n");
  switch (d.below(4)) {
    case 0:
      return {"TE+CL",
              post_with(d.below(2) ? "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"
                                   : "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                        chunked),
              {400}};
    case 1:
      return {"two TE",
              post_with(cat("Transfer-Encoding: chunked\r\nTransfer-Encoding: ",
                            d.one_of({"chunked", "gzip", "identity"}), "\r\n"),
                        chunked),
              {400}};
    case 2:
      return {"TE of 1.0",
              cat("POST /v1/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", chunked),
              {400}};
    default: {
      const std::string value =
          d.one_of({"gzip", "identity", "chunked, chunked", "gzip, chunked", "chunked, gzip", "xchunked", "",
                    "chunked;q=1", "chunked,", "\"chunked\"", "chun ked", ",chunked", "deflate"});
      return {"TE " + value, post_with(cat("Transfer-Encoding: ", value, "\r\n"), chunked), {400}};
    }
  }
}

Message bad_chunk(Dice& d) {
  const std::string head = "Transfer-Encoding: chunked\r\n";
  switch (d.below(6)) {
    case 0:
      return {"chunk too long",
              post_with(head, d.one_of({"40001\r\n", "FFFFFFFF\r\n", "7fffffffffffffff\r\n",
                                        "fffffffffffffff0\r\n"}) +
                                  kBody),
              {413}};
    case 1:
      return {"no CRLF behind a chunk",
              post_with(head, cat("20\r\n", kBody,
                                  d.one_of({"xxxxx\r\n\r\n", "0\r\n\r\n", "\n0\r\n\r\n", "\r0\r\n\r\n"}))),
              {400}};
    case 2:
      return {"endless chunk head", post_with(head, "1;" + std::string(100'000, 'x')), {431}};
    case 3: {
      const std::string trailer = d.one_of({"NoColon", ": x", "Na me: x", "X\x01: a"});
      return {"trailer " + trailer,
              post_with(head, cat("20\r\n", kBody, "\r\n0\r\n", trailer, "\r\n\r\n")),
              {400}};
    }
    case 4:
      return {"endless trailer",
              post_with(head, cat("20\r\n", kBody, "\r\n0\r\nX: ", std::string(100'000, 'x'))),
              {400, 431}};
    default: {
      const std::string size = d.one_of({"g", "-1", "0x20", "", " 20", "fffffffffffffffffffff", "20 5",
                                         "20;=", "20\x01", "+20", "2\n0", "20;a=\"", "z20", ";20", "\t20"});
      return {"chunk size " + size, post_with(head, cat(size, "\r\n", kBody, "\r\n0\r\n\r\n")), {400}};
    }
  }
}

Message too_large(Dice& d) {
  const size_t n = kMaxHeader + 1 + d.below(200'000);
  switch (d.below(5)) {
    case 0:
      return {"long field", get_request("/health", cat("X: ", std::string(n, 'x'), "\r\n")), {431}};
    case 1: {
      std::string fields;
      for (size_t i = 0; fields.size() < n; ++i) fields += cat("X-", i, ": y\r\n");
      return {"many fields", get_request("/health", fields), {431}};
    }
    case 2:
      return {"long target", get_request("/" + std::string(n, 'x')), {431}};
    case 3:
      return {"long name", get_request("/health", cat(std::string(n, 'x'), ": y\r\n")), {431}};
    default: {
      std::string chunks;
      const size_t size = 1 + d.below(5000);
      char head[20];
      std::snprintf(head, sizeof head, "%zx\r\n", size);
      while (chunks.size() <= kMaxBody + (kMaxBody >> 2) + 20 * (kMaxBody / size))
        chunks += head + std::string(size, ' ') + "\r\n";
      return {"many chunks", post_with("Transfer-Encoding: chunked\r\n", chunks), {413}};
    }
  }
}

Message cut_off(Dice& d) {  // a good message, ended anywhere
  std::string message = good_message(d);
  message.resize(d.below(message.size()));
  if (d.below(5) == 0)
    message = post_with("Transfer-Encoding: chunked\r\n", cat("20\r\n", kBody, "\r\n0\r\n\r"))
                  .substr(0, 60 + d.below(70));
  return {"cut off", message, {0}};
}

Message bad_host(Dice& d) {
  const auto get = [](const std::string& host) { return cat("GET /health HTTP/1.1\r\n", host, "\r\n"); };
  switch (d.below(4)) {
    case 0:
      return {"no host", get(""), {400}};
    case 1:
      return {"two hosts", get("Host: localhost\r\nHost: localhost\r\n"), {400}};
    case 2:
      return {"absolute",
              cat("GET http://", d.one_of({"evil.example", "evil.example:80", "", "@localhost.evil"}),
                  "/health HTTP/1.1\r\nHost: localhost\r\n\r\n"),
              {403}};
    default:
      return {"host",
              get("Host: " +
                  d.one_of({"evil.example", "localhost.evil", "1.2.3.4", "", "localhost, evil", "a b",
                            "[::", "]:"}) +
                  "\r\n"),
              {403}};
  }
}

Message other_protocol(Dice& d) {
  switch (d.below(5)) {
    case 0:
      return {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\0\4\0\0\0\0\0", 9), {400}};
    case 1: {
      std::string hello("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
      for (int i = 0; i < 200; ++i) hello += static_cast<char>(d.below(256));
      return {"TLS", hello, {400}};
    }
    case 2:
      return {"other",
              d.one_of({"EHLO example.com\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "*1\r\n$4\r\nPING\r\n",
                        "\r\n\r\n\r\nGET", "{\"a\": 1}\r\n\r\n"}),
              {400, 0}};
    case 3:
      return {"HTTP/0.9", "GET /health\r\n\r\n", {400}};
    default: {
      std::string noise;
      for (uint32_t i = 0, n = 1 + d.below(3000); i < n; ++i) noise += static_cast<char>(d.below(256));
      return {"noise", noise, {400, 431, 0}};
    }
  }
}

Message bad_expect(Dice& d) {
  return {"expect",
          post_request("/tokenize", kBody,
                       cat("Expect: ", d.one_of({"200-ok", "100-continue, x", "x", "100"}), "\r\n")),
          {417}};
}

// A second request behind a bad one must not be answered: nobody knows where it starts.
Message make(uint64_t seed) {
  constexpr Message (*kMakers[])(Dice&) = {bad_method,   bad_target,     bad_version, bad_header, bad_line,
                                           bad_length,   bad_encoding,   bad_chunk,   too_large,  cut_off,
                                           bad_host,     other_protocol, bad_expect,  bad_chunk,  bad_length,
                                           bad_encoding, bad_header};
  Dice dice(seed);
  Message message = kMakers[seed % std::size(kMakers)](dice);
  if (message.kind != "cut off" && dice.below(4) == 0) message.bytes += get_request("/health");
  for (uint32_t i = 0, n = dice.below(3) ? 0 : 1 + dice.below(6); i < n; ++i)
    message.cuts.push_back(dice.below(std::min<size_t>(message.bytes.size(), 400) + 1));
  std::sort(message.cuts.begin(), message.cuts.end());
  return message;
}

std::string printable(const std::string& bytes) {
  return dump_json(Json(bytes.substr(0, 400)));
}

void check_message(RunningServer& server, uint64_t seed) {
  const Message message = make(seed);
  HttpClient client(server.port());
  size_t at = 0;
  for (const size_t cut : message.cuts) {
    client.send(std::string_view(message.bytes).substr(at, cut - at));
    at = cut;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  client.send(std::string_view(message.bytes).substr(at));
  client.half_close();
  const HttpReply reply = client.read();
  const std::string about = cat("seed ", seed, ", ", message.kind, ": ", printable(message.bytes));
  EXPECT_TRUE(std::count(message.statuses.begin(), message.statuses.end(), reply.status) > 0)
      << "got " << reply.status << " " << reply.body.substr(0, 300) << "; " << about;
  EXPECT_LT(reply.status, 500) << about;
  if (reply.status < 400) return;
  const Json error = parse_json(reply.body, "answer")["error"];
  EXPECT_FALSE(error["message"].get<std::string>().empty()) << about;
  EXPECT_TRUE(error["param"].is_null()) << about;
  // 404 and 405 leave the connection as it is; behind anything else it is closed.
  if (reply.status != 404 && reply.status != 405) {
    EXPECT_EQ(reply.headers.at("connection"), "close") << about;
    EXPECT_TRUE(client.at_end()) << about;
  }
}

void check_alive(RunningServer& server) {
  const HttpReply reply = server.post("/v1/completions", kBody);
  ASSERT_EQ(reply.status, 200) << reply.body;
}

TEST(HostileHttp, MalformedMessagesGetTheirStatusAndTheServerGoesOn) {
  RunningServer server({.max_body_bytes = kMaxBody, .max_header_bytes = kMaxHeader});
  for (uint64_t seed = 0; seed < 1700; ++seed) {
    check_message(server, seed);
    if (seed % 100 == 99) check_alive(server);
    if (HasFatalFailure()) return;
  }
  EXPECT_TRUE(server.comes_to_rest());
}

TEST(HostileHttp, ManyMalformedMessagesAtOnceDoNoMore) {
  RunningServer server({.max_body_bytes = kMaxBody, .max_header_bytes = kMaxHeader});
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&server, t] {
      for (uint64_t seed = 0; seed < 100; ++seed) check_message(server, 5000 + 4 * seed + t);
    });
  for (std::thread& thread : threads) thread.join();
  check_alive(server);
  EXPECT_TRUE(server.comes_to_rest());
}

// Sends requests one after another on connections that are kept.
void check_bodies(RunningServer& server, const std::vector<WrongRequest>& requests) {
  HttpClient client(server.port());
  for (size_t i = 0; i < requests.size(); ++i) {
    const WrongRequest& wrong = requests[i];
    ASSERT_TRUE(client.send(post_request(wrong.route, wrong.body)));
    const HttpReply reply = client.read();
    const std::string about = cat(wrong.route, " ", wrong.param, " ", printable(wrong.body));
    ASSERT_EQ(reply.status, wrong.status) << about << "\n" << reply.body.substr(0, 500);
    const Json error = parse_json(reply.body, "answer")["error"];
    EXPECT_EQ(error["param"], wrong.param.empty() ? Json(nullptr) : Json(wrong.param)) << about << error;
    EXPECT_EQ(error["type"], "invalid_request_error") << about;
    EXPECT_EQ(reply.headers.at("connection"), "keep-alive");
    if (i % 250 == 249) check_alive(server);
  }
  check_alive(server);
}

TEST(HostileHttp, WrongBodiesNameTheFieldAtFault) {
  RunningServer server;
  EXPECT_EQ(server.post("/v1/chat/completions", dump_json(good_chat())).status, 200);
  EXPECT_EQ(server.post("/v1/completions", dump_json(good_completion())).status, 200);
  size_t sent = 0;
  for (uint64_t seed = 1; sent < 3000; ++seed) {
    for (const auto& requests : {wrong_fields(seed), wrong_texts(seed)}) {
      check_bodies(server, requests);
      if (HasFatalFailure()) return;
      sent += requests.size();
    }
  }
  EXPECT_TRUE(server.comes_to_rest());
}

// Bytes changed anywhere: perhaps still right. Whatever it is, it is no error of the server.
TEST(HostileHttp, MutatedBodiesAreNeverTheServersError) {
  RunningServer server;
  int64_t refused = 0;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    std::string body = dump_json(seed % 2 ? good_chat() : good_completion());
    Dice dice(seed);
    for (uint32_t i = 0, n = 1 + dice.below(4); i < n; ++i) {
      const size_t at = dice.below(body.size());
      switch (dice.below(4)) {
        case 0:
          body[at] = static_cast<char>(dice.below(256));
          break;
        case 1:
          body.erase(at, 1 + dice.below(8));
          break;
        case 2:
          body.insert(at, body.substr(dice.below(body.size()), 1 + dice.below(12)));
          break;
        default:
          body.insert(at, dice.one_of({"null", "0", "-1", "1e99", "[]", "{}", "\"", "\\u0000", "true",
                                       "9223372036854775807", "\xf0\x9f\x9a\x80"}));
      }
    }
    // A field that lost its name may ask for more than one token.
    const HttpReply reply = server.post(seed % 2 ? "/v1/chat/completions" : "/v1/completions", body);
    EXPECT_TRUE(reply.status == 200 || reply.status == 400 || reply.status == 404)
        << reply.status << " " << printable(body);
    refused += reply.status != 200;
  }
  EXPECT_GT(refused, 300);
  check_alive(server);
}

}  // namespace
}  // namespace hadal
