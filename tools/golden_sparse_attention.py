#!/usr/bin/env python3
"""Makes tests/golden/v32-tiny and v32-yarn: DeepSeek-V3.2 models with sparse attention, results of transformers.

Needs a Python with torch, transformers 5.23 and safetensors; no part of `./dev test`.
    python tools/golden_sparse_attention.py tests/golden

Every weight is random, norms and biases too. Seeds are tried until no choice, of keys, experts or tokens, is closer
than GAPS: then any order of summation in float32 chooses the same. tests/golden/README.md tells what the files hold.
"""
import argparse
import json
import pathlib

import safetensors.torch
import torch
import transformers
from transformers.masking_utils import create_causal_mask
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as v32

GAPS = {"index_gap": 1e-4, "route_gap": 1e-4, "greedy_gap": 2e-3}
TOLERANCE = {kind: {"atol": 3e-5, "rtol": 3e-5} for kind in ("hidden", "logits")}
SMALL = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "moe_intermediate_size": 12, "num_attention_heads": 3,
    "num_key_value_heads": 3, "q_lora_rank": 20, "kv_lora_rank": 16, "qk_nope_head_dim": 10, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2,
    "topk_group": 1, "first_k_dense_replace": 1, "max_position_embeddings": 1280, "pad_token_id": None,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 32,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
CASES = {
    "v32-tiny": {"num_hidden_layers": 2, "index_n_heads": 7, "index_head_dim": 14, "index_topk": 9, "mtp": True,
                 "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    "v32-yarn": {"num_hidden_layers": 3, "index_n_heads": 6, "index_head_dim": 10, "index_topk": 12, "mtp": False,
                 "rope_parameters": YARN},
}
ROWS, TOKENS, NEW = 2, 44, 6


def randomise(module, generator):
    for name, value in list(module.named_parameters()) + list(module.named_buffers()):
        if "inv_freq" in name:
            continue
        noise = torch.randn(value.shape, generator=generator)
        norm = "norm" in name and name.endswith("weight")
        value.data = 1 + 0.2 * noise if norm else noise * (0.3 if value.dim() == 1 else 0.5 / value.shape[-1] ** 0.5 * 2)


def margin(scores, k):
    """The least distance between the k-th and the next score, of rows that have a next one that is not masked."""
    if scores.shape[-1] <= k:
        return float("inf")
    top = scores.sort(-1, descending=True).values
    gap = (top[..., k - 1] - top[..., k])[top[..., k] > torch.finfo(scores.dtype).min / 2]
    return gap.min().item() if gap.numel() else float("inf")


class Gaps:
    """Watches the choices of keys and experts while the model runs."""

    def __init__(self, modules, config):
        self.config = config
        self.index_gap = self.route_gap = float("inf")
        self.topk, self.indexing = torch.Tensor.topk, False
        torch.Tensor.topk = lambda scores, k, **options: self.choose(scores, k, **options)
        for module in modules:
            if isinstance(module, v32.DeepseekV32TopkRouter):
                module.register_forward_hook(self.route)
            if isinstance(module, v32.DeepseekV32Indexer):
                module.register_forward_pre_hook(lambda *_: setattr(self, "indexing", True))
                module.register_forward_hook(lambda *_: setattr(self, "indexing", False))

    def choose(self, scores, k, **options):
        if self.indexing:  # a query that sees no more than k keys has no gap
            self.index_gap = min(self.index_gap, margin(scores, k))
        return self.topk(scores, k, **options)

    def route(self, module, inputs, output):
        scores = output[0].detach().sigmoid() + module.e_score_correction_bias
        best = scores.view(-1, self.config.n_group, 2).sort(-1, descending=True).values
        self.route_gap = min(self.route_gap, margin(best.sum(-1), self.config.topk_group))

    def stop(self):
        torch.Tensor.topk = self.topk


def mtp_weights(mtp, model):
    """As published, with the copies of embedding and head."""
    prefix = f"model.layers.{model.config.num_hidden_layers}."
    weights = {prefix + {"post_norm.weight": "shared_head.norm.weight"}.get(name, name.removeprefix("mtp_block.")): value
               for name, value in mtp.state_dict().items()}
    weights[prefix + "embed_tokens.weight"] = model.get_input_embeddings().weight
    weights[prefix + "shared_head.head.weight"] = model.lm_head.weight
    return weights


def unpacked(weights, config):
    """One tensor for each expert, as published."""
    out = {}
    for name, value in weights.items():
        prefix, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            for e in range(config.n_routed_experts):
                out[f"{prefix}.{e}.gate_proj.weight"], out[f"{prefix}.{e}.up_proj.weight"] = value[e].chunk(2)
        elif last == "down_proj":
            for e in range(config.n_routed_experts):
                out[f"{prefix}.{e}.down_proj.weight"] = value[e]
        else:
            out[name] = value
    return {name: value.detach().float().contiguous().clone() for name, value in out.items()}


def run_mtp(model, mtp, tokens, hidden):
    """hidden of tokens[:, :-1]; each joined with the token after it."""
    embeds = model.get_input_embeddings()(tokens[:, 1:])
    positions = torch.arange(1, tokens.shape[1])[None]
    mask = create_causal_mask(config=model.config, inputs_embeds=embeds, attention_mask=None, past_key_values=None,
                              position_ids=positions, allow_is_causal_skip=False)
    rope = model.model.rotary_emb(embeds, position_ids=positions)
    return mtp(embeds, hidden, rope, mask, positions, None)


@torch.no_grad()
def make(case, seed, with_mtp):
    fields = {**SMALL, **CASES[case]}
    fields.pop("mtp")
    config = transformers.DeepseekV32Config(**fields)
    config._attn_implementation = "eager"
    generator = torch.Generator().manual_seed(seed)
    model = transformers.DeepseekV32ForCausalLM(config).float().eval()
    randomise(model, generator)
    mtp = None
    if with_mtp:
        config.mlp_layer_types.append("sparse")
        mtp = transformers.modeling_layers.MtpLayer(config, v32.DeepseekV32DecoderLayer, v32.DeepseekV32RMSNorm,
                                                    config.num_hidden_layers).float().eval()
        randomise(mtp, generator)
    gaps = Gaps(list(model.modules()) + (list(mtp.modules()) if mtp else []), config)
    tokens = torch.randint(2, config.vocab_size, (ROWS, TOKENS), generator=generator)
    try:
        out = model(tokens, use_cache=True)
        if gaps.index_gap < GAPS["index_gap"] or gaps.route_gap < GAPS["route_gap"]:
            return None
        last, greedy, steps = out.logits[:, -1], [], []
        hidden = model.model(tokens).last_hidden_state
        greedy_gap = float("inf")
        for _ in range(NEW):
            greedy_gap = min(greedy_gap, margin(last, 1))
            greedy.append(last.argmax(-1, keepdim=True))
            out_step = model(greedy[-1], past_key_values=out.past_key_values, use_cache=True)
            last = out_step.logits[:, -1]
            steps.append(last)
        cache, one_by_one = None, []
        for t in range(TOKENS):
            step = model(tokens[:, t : t + 1], past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            one_by_one.append(step.logits[:, 0])
        mtp_hidden = run_mtp(model, mtp, tokens, hidden[:, :-1]) if mtp else None
    finally:
        gaps.stop()
    expected = {"tokens": tokens, "hidden.final": hidden, "logits": out.logits, "greedy_tokens": torch.cat(greedy, 1),
                "decode_logits": torch.stack(steps, 1)}
    if mtp:
        expected["mtp.normed"], expected["mtp.logits"] = mtp_hidden, model.lm_head(mtp_hidden)
    measured = {"index_gap": gaps.index_gap, "route_gap": gaps.route_gap, "greedy_gap": greedy_gap,
                "decode_vs_prefill": (torch.stack(one_by_one, 1) - out.logits).abs().max().item()}
    weights = unpacked({**model.state_dict(), **(mtp_weights(mtp, model) if mtp else {})}, config)
    return config, weights, expected, measured


def save(folder, case, seed, config, weights, expected, measured):
    folder.mkdir(parents=True, exist_ok=True)
    fields = {**json.loads(config.to_json_string(use_diff=False)), "architectures": ["DeepseekV32ForCausalLM"],
              "dtype": "float32"}
    kept = ("first_k_dense_replace", "index_", "rope_parameters", "model_type", "architectures", "dtype", "n_", "norm_",
            "num_", "qk_", "hidden_", "routed_", "topk_", "rms_", "attention_", "tie_", "transformers_version",
            "bos_token_id", "eos_token_id", *SMALL)
    out = {k: v for k, v in sorted(fields.items()) if k.startswith(kept) and k != "num_return_sequences"}
    out["num_nextn_predict_layers"] = 1 if CASES[case]["mtp"] else 0
    (folder / "config.json").write_text(json.dumps(out, indent=2) + "\n")
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    safetensors.torch.save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    note = ("Hugging Face model in float32, eager attention. decode_logits[:, j]: output for greedy_tokens[:, j] fed at "
            "position T+j. mtp.*: one MTP layer over hidden.final[:, :-1] and tokens[:, 1:], after its norm.")
    (folder / "expected.json").write_text(json.dumps({
        "case": case, "seed": seed, "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
        "note": note, "tolerance": TOLERANCE, "measured": measured}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    for case in CASES:
        for seed in range(1000):
            made = make(case, seed, CASES[case]["mtp"])
            if made and all(made[-1][name] >= least for name, least in GAPS.items()):
                save(folder / case, case, seed, *made)
                print(case, "seed", seed, made[-1], flush=True)
                break


if __name__ == "__main__":
    main()
