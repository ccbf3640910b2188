#include "hadal/posttrain/chat_data.h"

#include <gtest/gtest.h>

#include <map>

#include "hadal/base/file.h"
#include "hadal/error.h"
#include "hadal/posttrain/chat_rows.h"
#include "tests/support/error_of.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

const Tokenizer& bytes() {
  static const Tokenizer tokenizer = Tokenizer::load("tests/support/byte_tokenizer");
  return tokenizer;
}

ChatData read(const std::string& lines, int64_t max_tokens = 1000,
              const std::optional<ChatTemplate>& format = ChatTemplate::named("v3")) {
  const TemporaryFolder folder;
  write_file(folder / "chat.jsonl", lines);
  return read_chat_data(folder / "chat.jsonl", bytes(), format, max_tokens);
}

std::string refusal_of(const std::string& lines) {
  return error_of([&] { read(lines); });
}

// The text of what is trained, of what is not.
std::string part(const TrainedTokens& sample, bool trained) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < sample.ids.size(); ++i)
    if ((sample.trained[i] != 0) == trained) ids.push_back(sample.ids[i]);
  return bytes().decode(ids);
}

const std::string kEnd = "<｜end▁of▁sentence｜>";
const char* const kChat =
    R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]})";

TEST(ChatData, OfAConversationTheAssistantsPartIsTrained) {
  const ChatData data = read(kChat);
  ASSERT_EQ(data.samples.size(), 1u);
  EXPECT_EQ(part(data.samples[0], true), "a" + kEnd);
  EXPECT_EQ(part(data.samples[0], false), "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜>");
}

TEST(ChatData, OfPromptAndCompletionTheCompletionIsTrained) {
  const ChatData texts = read(R"({"prompt":"1+1=","completion":"2"})");
  EXPECT_EQ(part(texts.samples[0], true), "2" + kEnd);
  EXPECT_EQ(part(texts.samples[0], false), "<｜begin▁of▁sentence｜><｜User｜>1+1=<｜Assistant｜>");
  const ChatData chats =
      read(R"({"prompt":[{"role":"user","content":"q"},{"role":"assistant","content":"old"},)"
           R"({"role":"user","content":"r"}],"completion":[{"role":"assistant","content":"new"}]})");
  EXPECT_EQ(part(chats.samples[0], true), "new" + kEnd);
}

TEST(ChatData, WithoutAChatFormatACompletionContinuesThePrompt) {
  const ChatData texts = read(R"({"prompt":"1+1=","completion":"2"})", 1000, std::nullopt);
  EXPECT_EQ(part(texts.samples[0], false), "<｜begin▁of▁sentence｜>1+1=");
  EXPECT_EQ(part(texts.samples[0], true), "2" + kEnd);
}

TEST(ChatData, OfATextAllIsTrainedButItsFirstToken) {
  const ChatData data = read(R"({"text":"ab"})");
  EXPECT_EQ(part(data.samples[0], true), "ab" + kEnd);  // BOS is first
}

TEST(ChatData, InstructionsAreReadAsPromptAndCompletion) {
  const ChatData data = read(R"({"instruction":"add","input":"1 1","output":"2"})");
  EXPECT_EQ(part(data.samples[0], false), "<｜begin▁of▁sentence｜><｜User｜>add\n\n1 1<｜Assistant｜>");
  EXPECT_EQ(part(data.samples[0], true), "2" + kEnd);
}

TEST(ChatData, SamplesAreCutAtTheirEndAndLeftOutIfNothingTrainedIsLeft) {
  const std::string line = R"({"prompt":"1234567","completion":"89"})"
                           "\n";
  EXPECT_EQ(read(line, 11).cut, 1);
  EXPECT_EQ(read(line, 11).dropped, 0);
  EXPECT_EQ(read(line, 10).dropped, 1);
  EXPECT_TRUE(read(line, 10).samples.empty());
}

TEST(ChatData, ErrorsNameTheLine) {
  const std::string chat = std::string(kChat) + "\n";
  EXPECT_NE(refusal_of(chat + R"({"text":"x"})").find("line 2: holds text, the lines before hold messages"),
            std::string::npos);
  EXPECT_NE(refusal_of(chat + "\n{\"mesages\":[]}").find("line 3: is none of messages"), std::string::npos);
  EXPECT_NE(refusal_of(R"({"messages":[{"role":"user","content":"q"}]})").find("no turn of the assistant"),
            std::string::npos);
  EXPECT_NE(refusal_of(R"({"chosen":"a","rejected":"b"})").find("is a preference"), std::string::npos);
  EXPECT_NE(refusal_of(R"({"prompt":"","completion":"x"})").find("empty prompt"), std::string::npos);
  EXPECT_NE(refusal_of("[1]").find("line 1: is no JSON object"), std::string::npos);
  EXPECT_NE(refusal_of("\n").find("has no line"), std::string::npos);
  EXPECT_NE(refusal_of("{\"text\":\"\xff\"}").find("line 1"), std::string::npos);
}

TEST(ChatData, TheFingerprintKnowsWhatIsTrained) {
  const std::string a = R"({"prompt":"a","completion":"b"})", b = R"({"prompt":"","completion":"b"})";
  EXPECT_EQ(read(a).fingerprint, read(a).fingerprint);
  EXPECT_NE(read(a).fingerprint, read(R"({"text":"ab"})").fingerprint);
}

std::vector<TrainedTokens> samples_of_sizes(const std::vector<int64_t>& sizes) {
  std::vector<TrainedTokens> out;
  int32_t id = 100;
  for (const int64_t n : sizes) {
    TrainedTokens sample;
    for (int64_t i = 0; i < n; ++i) sample.ids.push_back(id), sample.trained.push_back(i > 0);
    ++id;
    out.push_back(sample);
  }
  return out;
}

TEST(ChatRows, EveryEpochHoldsEverySampleOnceAndWhole) {
  const ChatRows rows(samples_of_sizes({5, 3, 10, 2, 3, 7}), /*length=*/9, /*extra=*/1, 3);
  const int64_t n = rows.rows_per_epoch();
  EXPECT_EQ(n, 3);  // 30 tokens in rows of 10
  EXPECT_DOUBLE_EQ(rows.filled(), 1.0);
  for (const int64_t first : {int64_t{0}, n}) {
    const ChatRowBatch batch = rows.read(first, n);
    std::map<int32_t, int64_t> seen;
    for (int64_t i = 0; i < n * batch.length; ++i) {
      const auto at = static_cast<size_t>(i);
      const int64_t column = i % batch.length, start = batch.segment_start[at];
      if (batch.ids[at] == 0) {
        EXPECT_EQ(start, column);
        EXPECT_EQ(batch.trained[at], 0);
        continue;
      }
      ++seen[batch.ids[at]];
      EXPECT_EQ(batch.ids[at], batch.ids[static_cast<size_t>(i - column + start)]);  // its own sample
      EXPECT_EQ(batch.trained[at] != 0, column != start);
    }
    EXPECT_EQ(seen,
              (std::map<int32_t, int64_t>{{100, 5}, {101, 3}, {102, 10}, {103, 2}, {104, 3}, {105, 7}}));
  }
}

TEST(ChatRows, ARowIsAFunctionOfItsNumberAndEpochsDiffer) {
  const ChatRows rows(samples_of_sizes(std::vector<int64_t>(40, 9)), 9, 0, 3);
  EXPECT_EQ(rows.read(0, 100).ids.back(), rows.read(99, 1).ids.back());
  EXPECT_NE(rows.read(0, 40).ids, rows.read(40, 40).ids);
}

}  // namespace
}  // namespace hadal
