#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/input.h"
#include "hadal/cli/output.h"
#include "hadal/tokenizer/bpe_train.h"

namespace hadal {

int run_tokenizer_train(const TokenizerTrainOptions& options) {
  TrainTokenizerOptions train;
  train.kind = parse_tokenizer_kind(options.kind);
  train.vocab_size = options.vocab_size;
  train.min_pair_count = options.min_pair_count;
  train.special_tokens.insert(train.special_tokens.end(), options.special.begin(), options.special.end());
  std::vector<std::string> texts;
  for (const std::string& path : options.data) texts.push_back(read_text(path));
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const TrainedTokenizer trained = train_tokenizer(train, views);
  save_tokenizer(trained, options.out);
  if (options.json) {
    print(dump_json(
              {{"out", options.out}, {"vocab_size", trained.vocab_size}, {"merges", trained.num_merges}}) +
          "\n");
  } else {
    print(cat("wrote ", options.out, ": ", with_commas(trained.vocab_size), " tokens, ",
              with_commas(trained.num_merges), " merges\n"));
  }
  return 0;
}

}  // namespace hadal
