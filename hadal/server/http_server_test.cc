#include "hadal/server/http_server.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/http_client.h"

namespace hadal {
namespace {

constexpr const char* kShort = R"({"prompt": "Hello", "max_tokens": 3, "seed": 1, "ignore_eos": true})";
constexpr const char* kLong =
    R"({"prompt": "Hello", "max_tokens": 4000, "seed": 1, "ignore_eos": true, "n": 4})";
constexpr const char* kLongStream =
    R"({"prompt": "Hello", "max_tokens": 4000, "seed": 1, "ignore_eos": true, "n": 4, "stream": true})";

// Every answer that was asked for has its first token.
bool works(RunningServer& server) {
  const double give_up = now_seconds() + 30;
  while (server.engine().jobs() == 0 || server.engine().queued_requests() > 0)
    if (now_seconds() > give_up) return false;
  return true;
}

std::string text_of(const HttpReply& reply) {
  return parse_json(reply.body, "answer")["choices"][0]["text"].get<std::string>();
}

TEST(HttpServer, AConnectionIsKeptUntilOneSideSaysClose) {
  RunningServer server;
  HttpClient client(server.port());
  for (int i = 0; i < 3; ++i) {
    const HttpReply reply = client.request(get_request("/health"));
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.headers.at("connection"), "keep-alive");
  }
  EXPECT_EQ(client.request(post_request("/v1/completions", kShort)).status, 200);
  EXPECT_EQ(client.request(get_request("/nothing")).status, 404);
  const HttpReply last = client.request(get_request("/health", "Connection: close\r\n"));
  EXPECT_EQ(last.headers.at("connection"), "close");
  EXPECT_TRUE(client.at_end());
}

TEST(HttpServer, Http10ClosesUnlessAskedAndStreamsWithoutChunks) {
  RunningServer server;
  HttpClient client(server.port());
  EXPECT_EQ(client.request("GET /health HTTP/1.0\r\n\r\n").status, 200);
  EXPECT_TRUE(client.at_end());
  HttpClient keeping(server.port());
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(keeping.request("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").status, 200);
  const std::string body = R"({"prompt": "Hello", "max_tokens": 3, "stream": true})";
  HttpClient old(server.port());
  const HttpReply stream =
      old.request(cat("POST /v1/completions HTTP/1.0\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  EXPECT_EQ(stream.status, 200);
  EXPECT_FALSE(stream.headers.contains("transfer-encoding"));
  EXPECT_TRUE(stream.body.ends_with("data: [DONE]\n\n"));
}

TEST(HttpServer, HeadIsGetWithoutTheBody) {
  RunningServer server;
  for (const char* path : {"/", "/health", "/metrics", "/v1/models", "/openapi.json"}) {
    HttpClient client(server.port());
    client.send(cat("HEAD ", path, " HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    const HttpReply head = client.read(/*head=*/true);
    EXPECT_EQ(head.status, 200);
    EXPECT_GT(std::stoi(head.headers.at("content-length")), 2);
    EXPECT_EQ(client.request(get_request("/health")).body, "{\"status\":\"ok\"}");
  }
}

std::string chunked_request(const std::vector<std::string>& parts) {
  std::string out =
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n";
  for (const std::string& part : parts) {
    char size[20];
    std::snprintf(size, sizeof size, "%zX", part.size());
    out += cat(size, ";name=value\r\n", part, "\r\n");
  }
  return out + "0\r\nTrailer-Field: x\r\n\r\n";
}

TEST(HttpServer, AChunkedBodyIsTheSameAsAWholeOne) {
  RunningServer server;
  const std::string body = kShort;
  const std::string want = text_of(server.post("/v1/completions", body));
  HttpClient client(server.port());
  EXPECT_EQ(text_of(client.request(chunked_request({body}))), want);
  std::vector<std::string> bytes;
  for (const char c : body) bytes.emplace_back(1, c);
  EXPECT_EQ(text_of(client.request(chunked_request(bytes))), want);
}

TEST(HttpServer, ARequestMayArriveByteByByte) {
  RunningServer server;
  const std::string want = text_of(server.post("/v1/completions", kShort));
  HttpClient client(server.port());
  for (const std::string& request : {chunked_request({kShort}), post_request("/v1/completions", kShort)}) {
    for (size_t i = 0; i < request.size(); ++i) {
      ASSERT_TRUE(client.send(request.substr(i, 1)));
      std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
    EXPECT_EQ(text_of(client.read()), want);
  }
}

TEST(HttpServer, TheLastChunksHeadMayArriveAloneAndAByteBehindIt) {
  RunningServer server;
  HttpClient client(server.port());
  for (const std::string part :
       {"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n", "\r",
        "\n"}) {
    client.send(part);
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  EXPECT_EQ(client.read().status, 400);  // an empty body
  EXPECT_EQ(server.get("/health").status, 200);
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  RunningServer server;
  HttpClient client(server.port());
  client.send(get_request("/health") + post_request("/v1/completions", kShort) + get_request("/nothing") +
              post_request("/v1/completions", R"({"prompt": "a", "max_tokens": 2, "stream": true})") +
              get_request("/ready"));
  EXPECT_EQ(client.read().body, "{\"status\":\"ok\"}");
  EXPECT_EQ(client.read().status, 200);
  EXPECT_EQ(client.read().status, 404);
  EXPECT_TRUE(client.read().body.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(client.read().body, "{\"status\":\"ready\"}");
}

TEST(HttpServer, ExpectContinueIsAnsweredBeforeTheBody) {
  RunningServer server;
  HttpClient client(server.port());
  const std::string request = post_request("/v1/completions", kShort, "Expect: 100-continue\r\n");
  const size_t body = request.find("\r\n\r\n") + 4;
  client.send(request.substr(0, body));
  while (client.held().find("100 Continue\r\n\r\n") == std::string::npos) ASSERT_TRUE(client.more());
  client.send(request.substr(body));
  EXPECT_EQ(client.read().status, 200);
  EXPECT_EQ(client.num_continues, 1);
}

TEST(HttpServer, OnlyItsOwnNamesAreAnsweredTo) {
  RunningServer server({.allowed_hosts = {"My.Example"}});
  for (const auto& [host, status] : std::vector<std::pair<std::string, int>>{{"localhost", 200},
                                                                             {"LOCALHOST:8000", 200},
                                                                             {"127.0.0.1:1", 200},
                                                                             {"[::1]", 200},
                                                                             {"my.example", 200},
                                                                             {"my.example:80", 200},
                                                                             {"evil.example", 403},
                                                                             {"localhost.evil.example", 403},
                                                                             {"", 403},
                                                                             {"127.0.0.1.evil", 403},
                                                                             {"evil@localhost", 403},
                                                                             {"[::1]x", 403}})
    EXPECT_EQ(
        HttpClient(server.port()).request(cat("GET /health HTTP/1.1\r\nHost: ", host, "\r\n\r\n")).status,
        status)
        << host;
  const auto absolute = [&](const char* target) {
    return HttpClient(server.port())
        .request(cat("GET ", target, " HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        .status;
  };
  EXPECT_EQ(absolute("http://localhost:1/health?x=1"), 200);
  EXPECT_EQ(absolute("HTTP://localhost/health"), 200);
  EXPECT_EQ(absolute("http://localhost"), 200);
  EXPECT_EQ(absolute("http://evil.example/health"), 403);
  RunningServer open({.check_host = false});
  EXPECT_EQ(HttpClient(open.port()).request("GET /health HTTP/1.1\r\nHost: any.example\r\n\r\n").status, 200);
}

TEST(HttpServer, TheKeyIsNeeded) {
  RunningServer server({}, {.api_key = "secret"});
  const auto models = [&](const char* header) {
    return HttpClient(server.port()).request(get_request("/v1/models", header));
  };
  EXPECT_EQ(models("").status, 401);
  EXPECT_EQ(models("").headers.at("www-authenticate"), "Bearer");
  EXPECT_EQ(models("Authorization: Bearer wrong\r\n").status, 401);
  EXPECT_EQ(models("Authorization: Bearer secret\r\n").status, 200);
  EXPECT_EQ(server.get("/health").status, 200);
}

TEST(HttpServer, OtherSitesAreAllowedOnlyIfSet) {
  const std::string preflight =
      "OPTIONS /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\n"
      "Access-Control-Request-Method: POST\r\n\r\n";
  RunningServer closed;
  EXPECT_EQ(HttpClient(closed.port()).request(preflight).status, 405);
  EXPECT_FALSE(closed.get("/v1/models").headers.contains("access-control-allow-origin"));
  RunningServer open({.cors_origin = "https://a.example"}, {.api_key = "secret"});
  HttpClient client(open.port());
  const HttpReply allowed = client.request(preflight);  // browsers send no key with it
  EXPECT_EQ(allowed.status, 204);
  EXPECT_FALSE(allowed.headers.contains("content-length"));
  EXPECT_EQ(allowed.headers.at("access-control-allow-origin"), "https://a.example");
  EXPECT_EQ(client.request(get_request("/health")).headers.at("access-control-allow-origin"),
            "https://a.example");
}

TEST(HttpServer, AClientThatLeavesEndsItsAnswerAndFreesThePages) {
  RunningServer server;
  for (const char* body : {kLong, kLongStream})
    for (const bool next_request_waits : {false, true}) {
      HttpClient client(server.port());
      client.send(post_request("/v1/completions", body));
      if (next_request_waits) client.send(get_request("/health"));
      ASSERT_TRUE(works(server));
      const int64_t cancelled = server.engine().stats().cancelled_requests;
      const int64_t generated = server.engine().stats().generated_tokens;
      client.close();
      const double give_up = now_seconds() + 30;
      while (server.engine().stats().cancelled_requests < cancelled + 4) ASSERT_LT(now_seconds(), give_up);
      EXPECT_EQ(server.engine().stats().pages_used, 0);
      EXPECT_LT(server.engine().stats().generated_tokens - generated, 15000) << body;
    }
  const HttpReply metrics = server.get("/metrics");
  EXPECT_NE(metrics.body.find("finished_reason=\"abort\"} 16\n"), std::string::npos) << metrics.body;
}

TEST(HttpServer, ManyClientsThatLeaveLeakNothing) {
  RunningServer server;
  for (int i = 0; i < 60; ++i) {
    HttpClient client(server.port());
    client.send(
        post_request("/v1/completions", i % 2 ? kLong : kLongStream).substr(0, i % 5 == 4 ? 60 : 1000));
    if (i % 6 == 0 && i % 5 != 4) client.more();  // of a stream
  }
  EXPECT_TRUE(server.comes_to_rest());
  EXPECT_EQ(server.post("/v1/completions", kShort).status, 200);
  const double give_up = now_seconds() + 20;
  while (server.get("/metrics").body.find("hadal:http_connections 1\n") == std::string::npos)
    ASSERT_LT(now_seconds(), give_up);
}

TEST(HttpServer, AClientThatDoesNotReadIsDroppedAndDelaysNobody) {
  RunningServer server({.max_unsent_bytes = 64 << 10});
  HttpClient slow(server.port(), /*receive_bytes=*/2048);
  slow.send(post_request(
      "/v1/completions",
      R"({"prompt": "a", "max_tokens": 4000, "n": 8, "stream": true, "logprobs": 20, "ignore_eos": true})"));
  EXPECT_EQ(server.post("/v1/completions", kShort).status, 200);
  const double give_up = now_seconds() + 120;
  while (server.engine().stats().cancelled_requests < 8) ASSERT_LT(now_seconds(), give_up);
  EXPECT_TRUE(server.comes_to_rest());
  EXPECT_LT(server.engine().stats().generated_tokens, 8 * 3900);
}

TEST(HttpServer, AConnectionWhoseRequestDoesNotArriveInTimeIsClosed) {
  RunningServer server({.read_seconds = 0.2, .idle_seconds = 0.2});
  HttpClient header(server.port());
  header.send("GET /health HTTP/1.1\r\nHo");
  EXPECT_TRUE(header.at_end());
  HttpClient body(server.port());
  body.send(post_request("/v1/completions", kShort).substr(0, 130));
  EXPECT_TRUE(body.at_end());
  HttpClient asked(server.port());
  asked.send(
      "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(asked.read().status, 0);
  EXPECT_EQ(asked.num_continues, 1);
  HttpClient idle(server.port());
  EXPECT_TRUE(idle.at_end());
}

TEST(HttpServer, TooManyConnectionsAreTurnedAway) {
  RunningServer server({.max_connections = 3});
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<HttpClient>(server.port()));
    EXPECT_EQ(clients.back()->request(get_request("/health")).status, 200);
  }
  HttpClient one_more(server.port());
  const HttpReply reply = one_more.read();
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.headers.at("retry-after"), "1");
  EXPECT_EQ(clients[0]->request(get_request("/health")).status, 200);
}

TEST(HttpServer, ClientsThatStallDoNotKeepOthersWaiting) {
  RunningServer server;
  std::vector<std::unique_ptr<HttpClient>> stalled;
  for (int i = 0; i < 200; ++i) {
    stalled.push_back(std::make_unique<HttpClient>(server.port()));
    stalled.back()->send(post_request("/v1/completions", kShort).substr(0, static_cast<size_t>(i % 150)));
  }
  EXPECT_EQ(server.post("/v1/completions", kShort).status, 200);
}

TEST(HttpServer, StopLetsAnswersFinishAndTakesNoNewOnes) {
  RunningServer server;
  HttpClient idle(server.port()), stream(server.port()), plain(server.port());
  EXPECT_EQ(idle.request(get_request("/health")).status, 200);
  const std::string body = R"({"prompt": "a", "max_tokens": 1500, "seed": 1, "ignore_eos": true, "stream": )";
  stream.send(post_request("/v1/completions", body + "true}"));
  plain.send(post_request("/v1/completions", body + "false}"));
  while (server.engine().jobs() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  server.server().stop();
  EXPECT_TRUE(idle.at_end());
  const HttpReply streamed = stream.read(), whole = plain.read();
  EXPECT_TRUE(streamed.body.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(streamed.whole);
  EXPECT_EQ(parse_json(whole.body, "answer")["usage"]["completion_tokens"], 1500);
  const double give_up = now_seconds() + 30;
  while (!server.ended() && now_seconds() < give_up)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(server.ended());
  EXPECT_FALSE(HttpClient(server.port()).connected());
}

TEST(HttpServer, StopEndsWhatDoesNotFinishInTime) {
  RunningServer server({.drain_seconds = 0.1});
  HttpClient stream(server.port());
  stream.send(post_request("/v1/completions", kLongStream));
  ASSERT_TRUE(works(server));
  server.server().stop();
  const double give_up = now_seconds() + 30;
  while (!server.ended() && now_seconds() < give_up)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(server.ended());
}

TEST(HttpServer, APortInUseIsAnError) {
  RunningServer server;
  EngineThread engine(small_engine(), {});
  Api api({.model = "tiny", .chat_template = "v3"}, engine);
  EXPECT_THROW(HttpServer({.port = server.port()}, api, engine), Error);
  EXPECT_THROW(HttpServer({.address = "nowhere", .port = 0}, api, engine), Error);
}

}  // namespace
}  // namespace hadal
