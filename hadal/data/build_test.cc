#include "hadal/data/build.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "hadal/data/ordered_work.h"
#include "hadal/data/story_text.h"
#include "hadal/error.h"
#include "hadal/tokenizer.h"
#include "hadal/tokenizer/bpe_train.h"
#include "tests/support/data_sets.h"

namespace hadal {
namespace {

class Build : public testing::Test {
 protected:
  Build() {
    TrainTokenizerOptions train{.kind = TokenizerKind::kByte};
    for (const char* token : {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"})
      train.special_tokens.push_back(token);
    const std::vector<std::string_view> texts = {"a"};
    save_tokenizer(train_tokenizer(train, texts), folder / "tokenizer");
  }
  BuildOptions options(const std::string& text, DocumentSplit split) {
    write_file(folder / "input", text);
    BuildOptions build;
    build.out = folder / "out", build.tokenizer = folder / "tokenizer", build.inputs = {folder / "input"};
    build.split = split, build.overwrite = true;
    return build;
  }
  std::vector<std::string> texts(bool held_out = false) {
    const Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer");
    const OpenSource source = open_source(folder / "out", 0);
    const DocumentSet& set = held_out ? source.held_out : source.train;
    std::vector<std::string> found;
    for (int64_t d = 0; d < set.size(); ++d) {
      std::vector<int32_t> ids(static_cast<size_t>(set.at(d).count));
      set.at(d).file->read(set.at(d).begin, set.at(d).count, ids.data(), source.vocab_size);
      found.push_back(tokenizer.decode(ids));
    }
    return found;
  }
  std::string error(const std::string& text, DocumentSplit split) {
    return error_of([&] { build_dataset(options(text, split)); });
  }
  TemporaryFolder folder;
};

using Texts = std::vector<std::string>;

TEST_F(Build, TextIsSplitAsAsked) {
  const std::string text = "\xEF\xBB\xBFone\ntwo\n\n \t\n\nthree\r\n\r\nfour\n";
  build_dataset(options(text, DocumentSplit::kFile));
  EXPECT_EQ(texts(), Texts{text.substr(3)});
  build_dataset(options(text, DocumentSplit::kLine));
  EXPECT_EQ(texts(), (Texts{"one", "two", "three", "four"}));
  build_dataset(options(text, DocumentSplit::kBlankLine));
  EXPECT_EQ(texts(), (Texts{"one\ntwo", "three", "four"}));
}

TEST_F(Build, JsonlGivesTheFieldOfEachLine) {
  BuildOptions o = options("{\"text\": \"a\\nb\\u00e9\"}\n\n{\"id\": 3, \"text\": \"\"}\n {\"text\":\"c\"}",
                           DocumentSplit::kJsonl);
  build_dataset(o);
  EXPECT_EQ(texts(), (Texts{"a\nb\u00e9", "c"}));
}

// Pieces are cut at document borders, wherever they fall.
TEST_F(Build, PiecesHoldTheSameDocumentsAsTheWhole) {
  std::string text;
  for (int i = 0; i < 200; ++i)
    text += std::string(static_cast<size_t>(i * 31 % 23), 'x') + (i % 3 ? "\n" : "\n\n");
  for (const DocumentSplit split : {DocumentSplit::kLine, DocumentSplit::kBlankLine}) {
    const auto documents = [&](int64_t piece_bytes) {
      std::vector<std::pair<std::string, int64_t>> found;
      PieceCutter cutter(text, split, piece_bytes);
      for (TextPiece piece; cutter.next(piece);)
        for_each_document(piece, split, "", "x", [&](std::string_view t, int64_t at) {
          found.push_back({std::string(t), at});
        });
      return found;
    };
    const auto whole = documents(1 << 20);
    for (int64_t piece = 1; piece < 60; ++piece) EXPECT_EQ(documents(piece), whole) << piece;
    for (const auto& [t, at] : whole) EXPECT_EQ(text.substr(static_cast<size_t>(at), t.size()), t);
  }
}

TEST_F(Build, DoesNotDependOnTheNumberOfWorkers) {
  std::string text;
  for (uint64_t i = 0; i < 20000; ++i) text += story(1, i);
  BuildOptions o = options(text, DocumentSplit::kLine);
  o.held_out_share = 0.1, o.shard_tokens = 200000;
  std::vector<std::string> first;
  for (const int64_t workers : {1, 3, 8}) {
    o.workers = workers;
    const Manifest manifest = build_dataset(o);
    std::vector<std::string> hashes;
    for (const ManifestPart* part : {&manifest.train, &manifest.held_out})
      for (const ManifestShard& shard : part->shards) hashes.push_back(shard.sha256);
    if (first.empty()) first = hashes;
    EXPECT_EQ(hashes, first);
    EXPECT_GT(manifest.train.shards.size(), 3u);
    const auto all = static_cast<double>(manifest.train.documents() + manifest.held_out.documents());
    EXPECT_NEAR(static_cast<double>(manifest.held_out.documents()) / all, 0.1, 0.01);
  }
}

// The choice is by document, whoever takes it apart; the text stays, and what is held out is not touched.
TEST_F(Build, MergedTokensAreSplitInTrainingDocumentsAlone) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "{\"text\": \"one.\\ntwo three.\\nfour!\\n\"}\n";
  const std::string learned = "one.\ntwo three.\nfour!\none.\ntwo three.\nfour!\n";
  const std::vector<std::string_view> of = {learned};
  save_tokenizer(train_tokenizer({.vocab_size = 300}, of), folder / "tokenizer");
  BuildOptions o = options(text, DocumentSplit::kJsonl);
  o.held_out_share = 0.2;
  const Manifest whole = build_dataset(o);
  const Texts train = texts(), held_out = texts(true);
  o.split_merged = 0.5;
  const Manifest split = build_dataset(o);
  EXPECT_EQ(texts(), train);
  EXPECT_EQ(texts(true), held_out);
  EXPECT_GT(split.train.tokens(), whole.train.tokens() + 100);
  EXPECT_EQ(split.held_out.shards[0].sha256, whole.held_out.shards[0].sha256);
  o.workers = 3;
  EXPECT_EQ(build_dataset(o).train.shards[0].sha256, split.train.shards[0].sha256);
  o.seed = 1;
  EXPECT_NE(build_dataset(o).train.shards[0].sha256, split.train.shards[0].sha256);
  EXPECT_NE(error_of([&] { o.split_merged = 1.5, build_dataset(o); }).find("need 0 to 1"), std::string::npos);
}

TEST_F(Build, MergedTokensMustExistToBeSplit) {
  BuildOptions o = options("a.\n", DocumentSplit::kFile);  // one token a byte
  o.split_merged = 0.1;
  EXPECT_NE(error_of([&] { build_dataset(o); }).find("nothing to split"), std::string::npos);
}

TEST_F(Build, EndOfEachFileIsHeldOutWhenFilesAreDocuments) {
  BuildOptions o = options("0123456789ab\u00e9fghijk", DocumentSplit::kFile);  // 20 bytes
  o.held_out_share = 0.35;
  build_dataset(o);
  EXPECT_EQ(texts(), Texts{"0123456789ab\u00e9"});  // byte 13 is inside the letter
  EXPECT_EQ(texts(true), Texts{"fghijk"});
}

TEST_F(Build, TextCannotForgeASpecialToken) {
  build_dataset(options("a<｜end▁of▁sentence｜>b", DocumentSplit::kLine));
  EXPECT_EQ(texts(), Texts{"a<｜end▁of▁sentence｜>b"});
  const OpenSource source = open_source(folder / "out", 0);
  EXPECT_EQ(source.eos_id, 1);
  EXPECT_EQ(source.train.at(0).count, 29);  // bytes
}

TEST_F(Build, DataSetKnowsItsTokenizer) {
  const Manifest manifest = build_dataset(options("abc", DocumentSplit::kFile));
  EXPECT_EQ(manifest.tokenizer_sha256, hex(sha256(read_file(folder / "tokenizer/tokenizer.json"))));
  EXPECT_TRUE(manifest.fim.known());
  const OpenSource source = open_source(folder / "out/manifest.json", 0);
  EXPECT_EQ(source.tokenizer, folder / "out");
  EXPECT_EQ(Tokenizer::load(source.tokenizer).vocab_size(), manifest.vocab_size);
}

TEST_F(Build, ErrorsNameFileAndByte) {
  const std::string three = "{\"text\":\"a\"}\n";
  const std::pair<std::string, const char*> cases[] = {
      {three + "{\"text\": 3}", "byte 13: the field \"text\" is not a string"},
      {three + "{\"txt\": \"b\"}", "byte 13: this line has no field \"text\""},
      {three + "[1]", "byte 13: this line is not a JSON object"},
      {three + "{\"text\": \"b\"", "byte 13: this line is not JSON"},
      {three + "\xFF", "byte 13: not UTF-8"},
  };
  for (const auto& [text, message] : cases) {
    const std::string e = error(text, DocumentSplit::kJsonl);
    EXPECT_NE(e.find("input: "), std::string::npos) << e;
    EXPECT_NE(e.find(message), std::string::npos) << e;
  }
  EXPECT_NE(error("ab\ncd\xC3(", DocumentSplit::kLine).find("byte 5: not UTF-8"), std::string::npos);
  EXPECT_NE(error("", DocumentSplit::kFile).find("nothing to train on"), std::string::npos);
  EXPECT_NE(error("PAR1xyz", DocumentSplit::kFile).find("Convert it to JSONL"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder / "out/manifest.json"));  // a failed build is no data set
}

TEST_F(Build, FolderWithOtherThingsIsLeftAlone) {
  BuildOptions o = options("abc", DocumentSplit::kFile);
  o.overwrite = false;
  build_dataset(o);
  EXPECT_NE(error_of([&] { build_dataset(o); }).find("--overwrite"), std::string::npos);
  std::filesystem::remove(folder / "out/manifest.json");  // as a killed build leaves it
  EXPECT_NO_THROW(build_dataset(o));
  write_file(folder / "out/thesis.txt", "years of work");
  o.overwrite = true;
  EXPECT_NE(error_of([&] { build_dataset(o); }).find("thesis.txt"), std::string::npos);
  EXPECT_TRUE(std::filesystem::exists(folder / "out/manifest.json"));
}

TEST_F(Build, SwappedShardIsNoticed) {
  build_dataset(options("abc", DocumentSplit::kFile));
  std::filesystem::copy_file(folder / "out/train-000000.tokens", folder / "kept");
  build_dataset(options("abd", DocumentSplit::kFile));
  std::filesystem::copy_file(folder / "kept", folder / "out/train-000000.tokens",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_NE(error_of([&] { open_source(folder / "out", 0); }).find("not the shard that manifest.json names"),
            std::string::npos);
}

TEST_F(Build, BrokenManifestIsNamedByField) {
  build_dataset(options("abc", DocumentSplit::kFile));
  const std::string good = read_file(folder / "out/manifest.json");
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"hadal tokens", "other", "format: need"},
      {"\"version\": 1", "\"version\": 2", "version: got 2"},
      {"\"vocab_size\": 264", "\"vocab_size\": 0", "vocab_size: got 0"},
      {"\"eos_id\": 1", "\"eos_id\": \"1\"", "eos_id: not an integer"},
      {"\"eos_id\"", "\"eos\"", "eos_id: missing"},
      {"train-000000.tokens", "../x.tokens", "train.shards[0].file"},
      {"\"hole\": 6", "\"hole\": 999", "fim.hole: got 999"},
      {"\"shards\": [", "\"shards\": [3, ", "train.shards[0]"},
      {"\"documents\"", "\"docs\"", ""},
      {"{", "", "byte"},
  };
  for (const auto& [from, to, message] : cases) {
    std::string bad = good;
    const size_t at = bad.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write_file(folder / "out/manifest.json", bad.replace(at, std::string(from).size(), to));
    const std::string e = error_of([&] { open_source(folder / "out", 0); });
    EXPECT_NE(e.find(message), std::string::npos) << from << "\n" << e;
  }
}

TEST_F(Build, ConversionCutsDocumentsAtEos) {
  const auto convert = [&](const std::string& source, std::optional<int32_t> eos) {
    ConvertDataOptions o;
    o.source = folder / source, o.out = folder / "converted", o.eos_id = eos, o.overwrite = true;
    return convert_dataset(o);
  };
  const auto documents = [&] {
    const OpenSource source = open_source(folder / "converted", 0);
    Documents all;
    for (int64_t d = 0; d < source.train.size(); ++d) {
      const DocumentTokens tokens = source.train.at(d);
      all.emplace_back(static_cast<size_t>(tokens.count));
      tokens.file->read(tokens.begin, tokens.count, all.back().data(), source.vocab_size);
    }
    return all;
  };
  const Documents expected = {{10, 11}, {12}, {13, 14, 15}};
  write_file(folder / "llmc.bin", llm_c_shard({50256, 10, 11, 50256, 12, 50256, 13, 14, 15}));
  EXPECT_EQ(convert("llmc.bin", std::nullopt).eos_id, 50256);
  EXPECT_EQ(documents(), expected);
  write_file(folder / "nano.bin", packed<uint16_t>({10, 11, 9, 12, 9, 9, 13, 14, 15, 9}));
  EXPECT_EQ(convert("nano.bin", 9).vocab_size, 16);
  EXPECT_EQ(documents(), expected);
  write_file(folder / "mega.bin", packed<int32_t>({10, 11, 9, 12, 9, 13, 14, 15}));
  write_file(folder / "mega.idx", megatron_index<int32_t>(4, {3, 2, 3}));
  convert("mega.idx", 9);
  EXPECT_EQ(documents(), expected);
  EXPECT_NE(error_of([&] { convert("converted", 9); }).find("already"), std::string::npos);
  EXPECT_NE(error_of([&] { convert("nano.bin", 16); }).find("below the vocabulary"), std::string::npos);
}

TEST(OrderedWork, TakesResultsInOrderAndPassesTheFirstError) {
  for (const int64_t fail_at : {-1, 0, 57, 99}) {
    int64_t given = 0;
    std::vector<int64_t> taken;
    const auto run = [&] {
      ordered_work<int64_t, int64_t>(
          4, [&]() -> std::optional<int64_t> { return given < 100 ? std::optional(given++) : std::nullopt; },
          [&](const int64_t& job) {
            if (fail_at >= 0 && job >= fail_at) throw std::runtime_error(std::to_string(job));
            return job * job;
          },
          [&](int64_t result) { taken.push_back(result); });
    };
    EXPECT_EQ(error_of(run), fail_at < 0 ? "no error" : std::to_string(fail_at));
    ASSERT_EQ(taken.size(), static_cast<size_t>(fail_at < 0 ? 100 : fail_at));
    for (size_t i = 0; i < taken.size(); ++i) EXPECT_EQ(taken[i], static_cast<int64_t>(i * i));
  }
}

}  // namespace
}  // namespace hadal
