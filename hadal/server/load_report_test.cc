#include "hadal/server/load_report.h"

#include <gtest/gtest.h>

#include <set>

#include "hadal/error.h"

namespace hadal {
namespace {

TEST(LoadReport, PercentilesAreValuesThatWereMeasured) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Percentiles p = percentiles(values);
  EXPECT_EQ(p.p50, 50);
  EXPECT_EQ(p.p90, 90);
  EXPECT_EQ(p.p99, 99);
  EXPECT_EQ(percentiles({7}).p50, 7);
  EXPECT_EQ(percentiles({7}).p99, 7);
  EXPECT_EQ(percentiles({}).p99, 0);
}

TEST(LoadReport, ARequestIsOneOfAnsweredRejectedLostAndLeft) {
  LoadOutcome outcome{.seconds = 10};
  const RequestRecord good{
      .first = 1, .last = 2, .end = 2, .status = 200, .whole = true, .tokens = 11, .text = "a"};
  outcome.records = {good, good, good, good, good, good, good};
  outcome.records[1].first = 1.9;                               // in time
  outcome.records[2].due = -3;                                  // waited too long
  outcome.records[3].whole = false;                             // lost
  outcome.records[4].status = 429, outcome.records[4].end = 3;  // rejected
  outcome.records[5].left = true;
  outcome.records[6].text = "b", outcome.records[6].end = 11;  // wrong, and ended too late to count
  const LoadReport r = report_load(outcome, {.first_seconds = 2, .token_seconds = 0.2}, {"a"});
  EXPECT_EQ(r.requests, 7);
  EXPECT_EQ(r.answered, 4);
  EXPECT_EQ(r.rejected, 1);
  EXPECT_EQ(r.lost, 1);
  EXPECT_EQ(r.left, 1);
  EXPECT_EQ(r.wrong, 1);
  EXPECT_EQ(r.rejection.p99, 3);
  EXPECT_DOUBLE_EQ(r.requests_per_second, 0.3);
  EXPECT_DOUBLE_EQ(r.tokens_per_second, 3.3);
  EXPECT_DOUBLE_EQ(r.good_per_second, 0.2);
}

TEST(LoadReport, BodiesDifferAndComeAgainWithTheirSeed) {
  const std::vector<std::string> bodies = load_bodies({.seed = 1}, 50);
  EXPECT_EQ(std::set<std::string>(bodies.begin(), bodies.end()).size(), 50u);
  EXPECT_EQ(bodies, load_bodies({.seed = 1}, 50));
  EXPECT_NE(bodies, load_bodies({.seed = 2}, 50));
}

TEST(LoadTarget, AUrlIsReadWithAndWithoutV1) {
  for (const char* url : {"http://127.0.0.1:8123", "http://127.0.0.1:8123/", "http://127.0.0.1:8123/v1/"}) {
    const LoadTarget target = load_target(url);
    EXPECT_EQ(target.host + " " + target.port + " " + target.path, "127.0.0.1 8123 ") << url;
  }
  EXPECT_EQ(load_target("http://a/b/v1").path, "/b");
  for (const char* url : {"https://a", "127.0.0.1:8000", "http://", "http://a:b"})
    EXPECT_THROW(load_target(url), Error) << url;
}

}  // namespace
}  // namespace hadal
