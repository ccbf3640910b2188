// The C library through calls in C11 (c_calls.c): answers, ownership, threads, errors, structs of other
// headers.
#include <set>
#include <thread>

#include "hadal/error.h"
#include "hadal/tokenizer.h"
#include "tests/bindings/c_calls.h"
#include "tests/support/golden_cases.h"
#include "tests/support/server_model.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

#define EXPECT_C(call)                                 \
  do {                                                 \
    const char* wrong = (call);                        \
    EXPECT_EQ(wrong, nullptr) << (wrong ? wrong : ""); \
  } while (0)

// A golden model with the tokenizer of bytes beside its weights, opened.
class CApi : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* file : {"config.json", "model.safetensors"})
      std::filesystem::copy(golden_dir("v3-mtp") / file, folder_ / file);
    for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
      std::filesystem::copy(std::filesystem::path(kByteTokenizer) / file, folder_ / file);
    hadal_open_options options = HADAL_OPEN_OPTIONS_INIT;
    options.threads = 1, options.cache_tokens = 4096;
    ASSERT_EQ(hadal_open(path().c_str(), &options, &model_), HADAL_OK) << hadal_last_error();
  }
  void TearDown() override { hadal_close(model_); }
  std::string path() const { return folder_.path().string(); }

  TemporaryFolder folder_;
  hadal_model* model_ = nullptr;
};

TEST(CApiGolden, AnswersAreTheReferencesGreedyTokens) {
  const auto folder = golden_dir("v3-tiny");
  const GoldenArrays golden(folder);
  const std::vector<int32_t> prompts = golden.ints("input_ids"), answers = golden.ints("greedy_tokens");
  const size_t S = static_cast<size_t>(golden.shape("input_ids")[1]);
  const size_t N = static_cast<size_t>(golden.shape("greedy_tokens")[1]);
  const auto eos = load_config(folder).eos_ids;
  for (size_t b = 0; b * S < prompts.size(); ++b) {
    c_answer got{};
    EXPECT_C(c_open_and_generate(folder.c_str(), prompts.data() + b * S, S, static_cast<int64_t>(N), &got));
    EXPECT_EQ(got.status, HADAL_OK) << hadal_last_error();
    std::vector<int32_t> want(answers.begin() + b * N, answers.begin() + (b + 1) * N);
    want.erase(std::find_if(want.begin(), want.end(),
                            [&](int32_t id) { return std::count(eos.begin(), eos.end(), id) > 0; }),
               want.end());
    EXPECT_EQ(std::vector<int32_t>(got.ids, got.ids + got.num_ids), want);
    EXPECT_EQ(got.usage.prompt_tokens, static_cast<int64_t>(S));
    EXPECT_EQ(got.usage.generated_tokens, static_cast<int64_t>(want.size()));
  }
}

TEST_F(CApi, PiecesTogetherAreTheTextOfTheirTokens) {
  const std::vector<int32_t> prompt = {20, 21, 22};
  c_answer got{};
  c_generate(model_, prompt.data(), prompt.size(), 24, &got);
  ASSERT_EQ(got.status, HADAL_OK) << hadal_last_error();
  EXPECT_GT(got.num_ids, 0u);
  EXPECT_EQ(got.text, byte_tokenizer().decode({got.ids, got.num_ids}, /*skip_special=*/true));
  EXPECT_GT(got.usage.first_token_seconds, 0);
}

TEST_F(CApi, TextMakesARoundTrip) {
  EXPECT_C(c_text_makes_a_round_trip(model_));
  EXPECT_C(c_marks_of_a_prompt(model_, *byte_tokenizer().bos_id()));
}

TEST_F(CApi, AChatIsThePromptOfItsTemplate) {
  const hadal_message messages[] = {{"system", "Be short."}, {"user", "Hi"}};
  hadal_chat_options options = HADAL_CHAT_OPTIONS_INIT;
  options.format = "v3.1", options.thinking = 1;
  int32_t* ids = nullptr;
  size_t count = 0;
  ASSERT_EQ(hadal_chat_prompt(model_, messages, 2, &options, &ids, &count), HADAL_OK) << hadal_last_error();
  const std::vector<ChatMessage> same = {{.role = "system", .content = "Be short."},
                                         {.role = "user", .content = "Hi"}};
  EXPECT_EQ(std::vector<int32_t>(ids, ids + count),
            ChatTemplate::named("v3.1").encode(byte_tokenizer(), same, {.thinking = true}));
  hadal_free(ids);
  ids = nullptr;
  ASSERT_EQ(hadal_chat_prompt(model_, messages, 2, nullptr, &ids, &count), HADAL_OK) << hadal_last_error();
  EXPECT_EQ(std::vector<int32_t>(ids, ids + count),
            ChatTemplate::named("v3").encode(byte_tokenizer(), same, {}));
  hadal_free(ids);
  ids = nullptr;
  const hadal_message stranger = {"stranger", "Hi"};
  EXPECT_EQ(hadal_chat_prompt(model_, &stranger, 1, &options, &ids, &count), HADAL_INVALID_ARGUMENT);
  EXPECT_NE(std::string(hadal_last_error()).find("stranger"), std::string::npos) << hadal_last_error();
  EXPECT_EQ(ids, nullptr);
}

TEST_F(CApi, ACallbackThatReturnsOneEndsTheAnswer) {
  const std::vector<int32_t> prompt = {20, 21, 22};
  c_answer all{}, cut{};
  cut.most_pieces = 2;
  c_generate(model_, prompt.data(), prompt.size(), 24, &all);
  c_generate(model_, prompt.data(), prompt.size(), 24, &cut);
  ASSERT_GT(all.num_pieces, 2u);
  EXPECT_EQ(cut.status, HADAL_OK);
  EXPECT_EQ(cut.usage.finish, HADAL_FINISH_CANCELLED);
  EXPECT_EQ(cut.num_pieces, 2u);
  EXPECT_TRUE(std::equal(cut.ids, cut.ids + cut.num_ids, all.ids));
}

TEST_F(CApi, ThreadsOfOneModelGetWhatEachGetsAlone) {
  constexpr size_t kThreads = 6;
  std::vector<c_answer> alone(kThreads), together(kThreads);
  const auto ask = [&](size_t i, c_answer& out) {
    const std::vector<int32_t> prompt = {20, static_cast<int32_t>(30 + i), 22};
    c_generate(model_, prompt.data(), prompt.size(), 40, &out);
  };
  for (size_t i = 0; i < kThreads; ++i) ask(i, alone[i]);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) threads.emplace_back(ask, i, std::ref(together[i]));
  for (std::thread& thread : threads) thread.join();
  std::set<std::vector<int32_t>> different;
  for (size_t i = 0; i < kThreads; ++i) {
    ASSERT_EQ(together[i].status, HADAL_OK);
    const std::vector<int32_t> ids(together[i].ids, together[i].ids + together[i].num_ids);
    EXPECT_EQ(ids, std::vector<int32_t>(alone[i].ids, alone[i].ids + alone[i].num_ids));
    different.insert(ids);
  }
  EXPECT_GT(different.size(), 1u);
}

TEST_F(CApi, AThreadSeesItsOwnLastErrorOnly) {
  hadal_model* none = nullptr;
  hadal_open("/nowhere/mine", nullptr, &none);
  std::string other = "unset";
  std::thread([&] { other = hadal_last_error(); }).join();
  EXPECT_EQ(other, "");
  EXPECT_NE(std::string(hadal_last_error()).find("/nowhere/mine"), std::string::npos);
}

TEST_F(CApi, NullIsRefusedAndChangesNothing) {
  EXPECT_C(c_null_is_refused(model_));
}

TEST_F(CApi, WrongValuesAreRefusedAndTheModelGoesOn) {
  EXPECT_C(c_wrong_values_are_refused(model_, path().c_str()));
  const int32_t id = 20;
  c_answer got{};
  c_generate(model_, &id, 1, 4, &got);
  EXPECT_EQ(got.status, HADAL_OK);
}

TEST_F(CApi, AModelWithoutTokenizerSaysSo) {
  hadal_model* bare = nullptr;
  std::filesystem::remove(folder_ / "tokenizer.json");
  ASSERT_EQ(hadal_open(path().c_str(), nullptr, &bare), HADAL_OK) << hadal_last_error();
  EXPECT_C(c_without_tokenizer(bare));
  hadal_close(bare);
}

TEST_F(CApi, StructsOfOlderAndNewerHeadersAreRead) {
  EXPECT_C(c_structs_of_other_headers(model_, 20));
}

TEST_F(CApi, AnExceptionOfTheCallbackStaysInside) {
  const int32_t id = 20;
  const auto throws = [](void*, const hadal_piece*) -> int { throw 5; };
  EXPECT_EQ(hadal_generate(model_, &id, 1, nullptr, throws, nullptr, nullptr), HADAL_INTERNAL);
  EXPECT_NE(std::string(hadal_last_error()).find("callback"), std::string::npos);
}

TEST(CApiNames, StatusesAreTheErrorCodesByName) {
  EXPECT_STREQ(hadal_status_name(HADAL_OK), "ok");
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code)
    EXPECT_STREQ(hadal_status_name(code + 1), name(static_cast<ErrorCode>(code)));
  EXPECT_STREQ(hadal_status_name(99), "unknown");
  EXPECT_EQ(hadal_abi_version(), HADAL_ABI_VERSION);
}

}  // namespace
}  // namespace hadal
