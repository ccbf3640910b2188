// The cache on disk: what comes back is the same bits, and nothing else comes in.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "hadal/base/json.h"
#include "hadal/engine.h"
#include "hadal/engine/page_table.h"
#include "hadal/error.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

class SavedCache : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("hadal_cache_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path path() const { return folder_ / "cache.bin"; }

  static Engine open(const std::string& format = "f32", const std::string& golden = "v3-mtp",
                     int64_t cache_tokens = 2048) {
    EngineConfig config{.threads = 1, .cache_tokens = cache_tokens, .cache_dtype = format};
    config.speculation = Speculation::kOn;
    return Engine::open(golden_dir(golden), config);
  }

  static Request request(int64_t tokens, int64_t differs_at = 1 << 20) {
    Request out{.max_tokens = 6, .sampling = {.temperature = 0}, .ignore_end = true, .top_logprobs = 200};
    for (int64_t i = 0; i < tokens; ++i)
      out.prompt.push_back(static_cast<int32_t>((i * 37 + (i >= differs_at ? 11 : 0)) % 240 + 3));
    return out;
  }

  // Every token with the log probabilities of nearly the whole vocabulary: equal only if the logits are.
  static std::vector<std::pair<int32_t, float>> bits(const Answer& answer) {
    std::vector<std::pair<int32_t, float>> out;
    for (const NewToken& token : answer.tokens)
      for (const TokenLogprob& one : token.logprobs) out.emplace_back(one.id, one.logprob);
    return out;
  }

  // The lowest bit of a tensor's first value, in place.
  static void alter(const fs::path& file, const std::string& name) {
    std::fstream data(file, std::ios::binary | std::ios::in | std::ios::out);
    uint64_t size = 0;
    data.read(reinterpret_cast<char*>(&size), sizeof size);
    std::string header(size, ' ');
    data.read(header.data(), static_cast<std::streamsize>(size));
    const auto at = static_cast<std::streamoff>(
        8 + size + parse_json(header, "header").at(name).at("data_offsets").at(0).get<uint64_t>());
    data.seekg(at);
    const int byte = data.get();
    data.seekp(at);
    data.put(static_cast<char>(byte ^ 1));
  }

  static std::string error(Engine& engine, const fs::path& file) {
    const EngineStats before = engine.stats();
    try {
      engine.load_cache(file);
    } catch (const Error& e) {
      EXPECT_EQ(engine.stats().pages_cached, before.pages_cached);
      return e.what();
    }
    return "accepted";
  }

  std::string content() const {
    std::ifstream in(path(), std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  fs::path changed(const std::string& text) const {
    std::ofstream(folder_ / "changed.bin", std::ios::binary) << text;
    return folder_ / "changed.bin";
  }

  fs::path folder_;
};

TEST_F(SavedCache, ARestoredPrefixGivesTheLogitsOfAColdCacheBitForBit) {
  for (const char* format : {"f32", "bf16", "int8", "fp8"}) {
    Engine first = open(format);
    first.generate(request(200));
    first.generate(request(200, 100));  // shares a page
    EXPECT_EQ(first.save_cache(path()), first.stats().pages_cached * kPageTokens);
    Engine cold = open(format), restored = open(format);
    EXPECT_EQ(restored.load_cache(path()), 5 * kPageTokens) << format;
    EXPECT_EQ(restored.load_cache(path()), 0) << "all there";
    for (const int64_t differs_at : {1 << 20, 100, 150}) {
      const Answer want = cold.generate(request(230, differs_at));
      const Answer got = restored.generate(request(230, differs_at));
      EXPECT_EQ(got.usage.reused_tokens, differs_at == 150 ? 128 : 192) << format << " " << differs_at;
      EXPECT_EQ(bits(got), bits(want)) << format << " " << differs_at;
      EXPECT_GT(got.usage.drafted_tokens, 0) << "the MTP rows came along";
    }
  }
}

TEST_F(SavedCache, TakesWhatFreePagesHoldAndKeepsWhatIsThere) {
  Engine first = open();
  first.generate(request(300));
  first.save_cache(path());
  Engine small = open("f32", "v3-mtp", 4 * kPageTokens);
  small.generate(request(70, 0));
  EXPECT_EQ(small.stats().pages_cached, 1);
  EXPECT_EQ(small.load_cache(path()), 3 * kPageTokens);
  EXPECT_EQ(small.generate(request(80, 0)).usage.reused_tokens, 64);
  Engine cold = open();
  const Answer got = small.generate(request(200));
  EXPECT_GE(got.usage.reused_tokens, 128);
  EXPECT_EQ(bits(got), bits(cold.generate(request(200))));
}

TEST_F(SavedCache, OfAnotherModelOrFormatIsRefused) {
  Engine first = open();
  first.generate(request(200));
  first.save_cache(path());
  Engine other_model = open("f32", "v3-yarn"), other_format = open("int8");
  EXPECT_NE(error(other_model, path()).find("another model"), std::string::npos);
  EXPECT_NE(error(other_format, path()).find("another cache format: got \"f32\", need \"int8\""),
            std::string::npos);
  EXPECT_NE(error(first, folder_ / "none").find("none"), std::string::npos);
  EngineConfig config{.threads = 1, .cache_tokens = 512, .reuse_prefixes = false};
  Engine without = Engine::open(golden_dir("v3-mtp"), config);
  EXPECT_NE(error(without, path()).find("reuse_prefixes"), std::string::npos);
}

TEST_F(SavedCache, OfAModelThatDiffersInOneTensorIsRefused) {
  Engine first = open();
  first.generate(request(200));
  first.save_cache(path());
  const std::string layer = "model.layers.1.", expert = "mlp.experts.1.";
  for (const std::string& name :
       {"model.norm.weight" + std::string(), "lm_head.weight" + std::string(),
        layer + "input_layernorm.weight", layer + "self_attn.kv_a_layernorm.weight",
        layer + "mlp.gate.e_score_correction_bias", layer + expert + "up_proj.weight",
        layer + "mlp.shared_experts.down_proj.weight"}) {
    SCOPED_TRACE(name);
    fs::copy(golden_dir("v3-mtp"), folder_ / "model", fs::copy_options::recursive);
    alter(folder_ / "model" / "model.safetensors", name);
    EngineConfig config{.threads = 1, .cache_tokens = 2048, .cache_dtype = "f32"};
    config.speculation = Speculation::kOn;
    Engine other = Engine::open(folder_ / "model", config);
    EXPECT_NE(error(other, path()).find("another model"), std::string::npos);
    fs::remove_all(folder_ / "model");
  }
}

TEST_F(SavedCache, CutShortOrAlteredAnywhereIsRefusedAndChangesNothing) {
  Engine first = open("int8");
  first.generate(request(140));
  first.save_cache(path());
  const std::string good = content();
  Engine engine = open("int8");
  for (size_t size = 0; size < good.size(); size += std::max<size_t>(1, size / 9)) {
    const std::string what = error(engine, changed(good.substr(0, size)));
    EXPECT_NE(what.find("Delete it"), std::string::npos) << size << ": " << what;
  }
  for (size_t at = 0; at < good.size(); at += 1 + at / 40) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    EXPECT_NE(error(engine, changed(bad)), "accepted") << at;
  }
  EXPECT_EQ(error(engine, changed(good + "x")).find("accepted"), std::string::npos);
  EXPECT_EQ(engine.load_cache(changed(good)), 2 * kPageTokens);
}

TEST_F(SavedCache, AnOldFileStaysWhenTheNewOneCannotBeWritten) {
  Engine engine = open();
  engine.generate(request(100));
  engine.save_cache(path());
  const std::string before = content();
  EXPECT_THROW(engine.save_cache(folder_ / "no" / "cache.bin"), Error);
  EXPECT_EQ(engine.save_cache(path()), kPageTokens);
  EXPECT_EQ(content(), before);
  for (const auto& entry : fs::directory_iterator(folder_)) EXPECT_EQ(entry.path(), path());
}

TEST(PageTable, PublishedPagesComeBehindTheirParents) {
  PageTable table({.num_pages = 12, .page_tokens = 2});
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 6, 7, 8}, other = {1, 2, 3, 4, 9, 9};
  for (const SequenceId id : {1, 2}) {
    const auto& all = id == 1 ? tokens : other;
    const int64_t have = table.open(id, all);
    table.reserve(id, std::ssize(all));
    table.commit(id, std::span(all).subspan(static_cast<size_t>(have)));
  }
  table.close(2);
  for (const bool closed : {false, true}) {
    if (closed) table.close(1);
    PageTable copy({.num_pages = 5, .page_tokens = 2});
    std::map<int32_t, int32_t> to = {{-1, -1}};
    for (const PageTable::Published& p : table.published()) {
      ASSERT_TRUE(to.contains(p.parent));
      const auto restored = copy.restore(to[p.parent], p.tokens);
      ASSERT_TRUE(restored && restored->is_new);
      to[p.page] = restored->page;
    }
    copy.check();
    EXPECT_EQ(to.size(), 6u);
    EXPECT_EQ(copy.match(tokens).tokens, 8);
    EXPECT_EQ(copy.match(other).tokens, 6);
    EXPECT_FALSE(copy.restore(-1, std::vector<int32_t>{5, 5}));
  }
}

}  // namespace
}  // namespace hadal
