#include <cmath>

#include "hadal/base/text.h"
#include "hadal/config.h"
#include "hadal/error.h"

namespace hadal {

bool ModelConfig::is_moe(int64_t layer) const {
  if (moe.num_experts == 0) return false;
  return layer >= num_layers || (layer >= moe.first_layer && layer % moe.layer_step == 0);
}

double ModelConfig::softmax_scale() const {
  double scale = 1.0 / std::sqrt(static_cast<double>(mla.key_dim()));
  if (mla.yarn && mla.yarn->mscale_all_dim != 0 && mla.yarn->factor > 1) {
    const double m = 0.1 * mla.yarn->mscale_all_dim * std::log(mla.yarn->factor) + 1.0;
    scale *= m * m;
  }
  return scale;
}

void require_purpose(const ModelConfig& config, Purpose purpose, const std::string& source) {
  if (config.scores == (purpose == Purpose::kReward)) return;
  throw Error(ErrorCode::kUnsupported,
              cat("[config.purpose] ", source, " is ",
                  config.scores ? "a reward model, which scores answers and writes none; need a language "
                                  "model. Use it with hadal reward-model, or as the reward rm:FOLDER."
                                : "a language model, which writes and gives no score; need a reward model. "
                                  "Make one of it: hadal reward-model train."));
}

void require_dense_attention(const ModelConfig& config, const std::string& source) {
  if (!config.mla.indexer) return;
  throw Error(ErrorCode::kUnsupported,
              cat("[config.attention] ", source,
                  " is a deepseek_v32 model: its sparse attention (index_topk ", config.mla.indexer->top_k,
                  ") can be run, but not trained. Use it with hadal run, serve or eval; to train, start from "
                  "a deepseek_v3 model."));
}

ModelConfig reward_config(const ModelConfig& config) {
  ModelConfig out = config;
  out.scores = true, out.tied_head = false, out.mtp_depth = 0;
  return out;
}

}  // namespace hadal
