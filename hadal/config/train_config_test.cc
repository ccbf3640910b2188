#include "hadal/config/train_config.h"

#include <gtest/gtest.h>

#include "hadal/base/file.h"
#include "hadal/error.h"

namespace hadal {
namespace {

std::string problem(auto&& act) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidConfig);
    return e.what();
  }
  return "no error";
}

std::string reading(const char* toml) {
  TrainConfig config;
  return problem([&] { read_train_config(toml, "run.toml", config); });
}

TEST(TrainConfig, WhatIsPrintedReadsBackToTheSame) {
  TrainConfig config;
  config.run.out = "a \"b\"\\c\n", config.data.sources = {"x", "y,z"}, config.optimizer.lr = 1.0 / 3;
  config.run.seed = 7, config.checkpoint.background = false, config.optimizer.clip = 2;
  const std::string text = train_config_toml(config);
  TrainConfig back;
  read_train_config(text, "x", back);
  EXPECT_EQ(train_config_toml(back), text);
  EXPECT_EQ(back.optimizer.lr, 1.0 / 3);
  EXPECT_EQ(back.run.out, config.run.out);
}

TEST(TrainConfig, UnknownKeysAreRefusedWithTheNearestName) {
  EXPECT_EQ(reading("[optimizer]\nweight_decai = 1\n"),
            "[config.train] run.toml: line 2: there is no key optimizer.weight_decai (did you mean "
            "\"optimizer.weight_decay\"?). hadal train --print-config lists all.");
  EXPECT_NE(reading("[learning_things]\nlr = 1.0\n").find("\"optimizer.lr\""), std::string::npos);
  EXPECT_NE(reading("lr = 1.0\n").find("outside a section"), std::string::npos);
}

TEST(TrainConfig, WrongTypesNameFileLineKeyValueAndNeed) {
  EXPECT_EQ(reading("[batch]\nlength = \"long\"\n"),
            "[config.train] run.toml: line 2: batch.length is \"long\", need an integer.");
  EXPECT_NE(reading("[batch]\nlength = 1.5\n").find("batch.length is 1.5, need an integer"),
            std::string::npos);
  EXPECT_NE(reading("[run]\nseed = -1\n").find("need an integer of at least 0"), std::string::npos);
  EXPECT_NE(reading("[run]\nminutes = inf\n").find("run.minutes"), std::string::npos);
  EXPECT_NE(reading("[run\n").find("line 1: not TOML"), std::string::npos);
}

TEST(TrainConfig, AnIntegerIsANumber) {
  TrainConfig config;
  read_train_config("[optimizer]\nclip = 2\n", "x", config);
  EXPECT_EQ(config.optimizer.clip, 2.0);
}

TEST(TrainConfig, OverridesTakeTextAsItIsAndRefuseTheRest) {
  TrainConfig config;
  set_train_key(config, "optimizer.lr", "3e-4", "the command line");
  set_train_key(config, "data.text", "a b.txt", "the command line");
  set_train_key(config, "data.sources", "a,b", "the command line");
  EXPECT_EQ(config.optimizer.lr, 3e-4);
  EXPECT_EQ(config.data.text, "a b.txt");
  EXPECT_EQ(config.data.sources, (std::vector<std::string>{"a", "b"}));
  EXPECT_NE(problem([&] {
              set_train_key(config, "optimizer.lr", "fast", "the command line");
            }).find("the command line: optimizer.lr is \"fast\", need a number"),
            std::string::npos);
  EXPECT_NE(problem([&] {
              set_train_key(config, "optimiser.lr", "1", "the command line");
            }).find("\"optimizer.lr\""),
            std::string::npos);
}

TEST(TrainConfig, TheReferenceInDocsIsThatOfTheProgram) {
  EXPECT_EQ(read_file("docs/config.md"), train_config_reference())
      << "make it again: hadal train --print-config-reference > docs/config.md";
}

TEST(TrainConfig, RulesAcrossKeysAreChecked) {
  TrainConfig config;
  config.data.text = "t";
  EXPECT_NE(problem([&] { check(config, "f"); }).find("run.steps is 0, need"), std::string::npos);
  config.run.steps = 1;
  EXPECT_EQ(problem([&] { check(config, "f"); }), "no error");
  config.batch.start = 4;
  EXPECT_NE(problem([&] { check(config, "f"); }).find("batch.ramp_tokens"), std::string::npos);
  config.batch.start = 0, config.schedule.kind = "linear";
  EXPECT_NE(problem([&] { check(config, "f"); }).find("schedule.kind is \"linear\", need v3"),
            std::string::npos);
}

TEST(TrainConfig, WhatOnlyDocumentsHaveIsRefusedOfATextAndTheOtherWayRound) {
  for (const auto& [key, value] : {std::pair{"data.packing", "best_fit"},
                                   {"data.mask_documents", "true"},
                                   {"data.fim_rate", "0.1"},
                                   {"data.split_merged", "0.1"}}) {
    const bool of_text = std::string(key) == "data.split_merged";
    for (const bool text : {true, false}) {
      TrainConfig config;
      config.run.steps = 1;
      set_train_key(config, text ? "data.text" : "data.sources", "x", "f");
      set_train_key(config, key, value, "f");
      const std::string found = problem([&] { check(config, "f"); });
      EXPECT_EQ(found.find(key) == std::string::npos, text == of_text) << key << ": " << found;
    }
  }
}

TEST(TrainConfig, WhatAGpuDoesNotDoIsRefused) {
  const auto with = [](const std::string& device, const std::string& key, const std::string& value) {
    TrainConfig config;
    config.run.steps = 1, config.data.text = "x";
    config.compute.device = device;
    if (!key.empty()) set_train_key(config, key, value, "f");
    return problem([&] { check(config, "f"); });
  };
  for (const char* device : {"cpu", "cuda", "cuda:0", "cuda:12"}) EXPECT_EQ(with(device, "", ""), "no error");
  for (const char* device : {"", "gpu", "cuda:", "cuda:x", "cuda:1234"})
    EXPECT_NE(with(device, "", "").find("need cpu, cuda or cuda:N"), std::string::npos) << device;
  for (const auto& [key, value] : {std::pair{"compute.precision", "f16"},
                                   {"compute.precision", "fp8"},
                                   {"batch.workers", "2"},
                                   {"parallel.pipeline", "2"}}) {
    EXPECT_EQ(with("cpu", key, value), "no error") << key;
    EXPECT_NE(with("cuda", key, value).find(key), std::string::npos) << key;
  }
}

TEST(TrainConfig, WordsOfFp8AreChecked) {
  for (const auto& [key, value] : {std::pair{"fp8.sums", "fp16"},
                                   {"fp8.activations", "row"},
                                   {"fp8.gradients", ""},
                                   {"fp8.weights", "tile"},
                                   {"fp8.gradient_format", "e4m4"},
                                   {"run.also_export", "int8"}}) {
    TrainConfig config;
    config.run.steps = 1, config.data.text = "t", config.compute.precision = "fp8";
    EXPECT_EQ(problem([&] { check(config, "f"); }), "no error");
    set_train_key(config, key, value, "f");
    EXPECT_NE(problem([&] { check(config, "f"); }).find(std::string(key) + " is \"" + value + "\", need "),
              std::string::npos)
        << key;
  }
}

TEST(TrainConfig, LayoutsOfRanksAreChecked) {
  for (const auto& [key, value] : {std::pair{"parallel.pipeline", "0"},
                                   {"parallel.schedule", "dualpipe-x"},
                                   {"parallel.chunks", "0"},
                                   {"parallel.layers", "3,4,"},
                                   {"parallel.layers", "3;4"},
                                   {"parallel.layers", "3,-1"},
                                   {"parallel.experts", "0"},
                                   {"parallel.tensor", "0"}}) {
    TrainConfig config;
    config.run.steps = 1, config.data.text = "t";
    set_train_key(config, key, value, "f");
    EXPECT_NE(problem([&] { check(config, "f"); }).find(key), std::string::npos) << key << " " << value;
  }
  TrainConfig config;
  config.run.steps = 1, config.data.text = "t";
  config.parallel = {.pipeline = 4, .schedule = "zb-v", .layers = "3,4,4,0", .experts = 2, .tensor = 2};
  EXPECT_EQ(problem([&] { check(config, "f"); }), "no error");
}

TEST(TrainConfig, OnlyKeysThatTheWeightsDependOnCountAsChanges) {
  TrainConfig a, b;
  b.run.minutes = 3, b.checkpoint.every = 7, b.run.out = "x";
  EXPECT_TRUE(result_changes(a, b).empty());
  b.batch.sequences = 16;
  EXPECT_EQ(result_changes(a, b), std::vector<std::string>{"batch.sequences: 8 before, 16 now"});
}

}  // namespace
}  // namespace hadal
