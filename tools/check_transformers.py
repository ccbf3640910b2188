#!/usr/bin/env python3
"""Does transformers load what `hadal convert` writes, with equal logits, and hadal what transformers writes?

Needs a Python with torch, transformers 5.23 and safetensors; no part of `./dev test`.
    python tools/check_transformers.py --hadal build/release/bin/hadal [--golden tests/golden] [case ...]

For each golden case: convert to f32 (one file, shards), bf16, f16 and fp8. f32, bf16, f16 are loaded by
transformers and compared with the source, its weights rounded by torch. FP8 codes and scales are compared with
torch's own quantisation, exactly; their logits through hadal's dequantisation, as transformers splits partial blocks
wrongly. What transformers saves is given to `hadal inspect` and converted again. Prints the largest absolute
difference of the logits; exit code 1 if one is above 1e-4.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import safetensors.torch
import torch
import transformers

LIMIT = 1e-4
BLOCK = 128
CASES = ["v3-tiny", "v3-yarn", "v3-noqlora", "v2-tiny", "v2lite-tiny", "v3-bf16", "v3-mtp", "v3-fp8"]
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
# Not of the architecture: how the weights are stored, and by whom.
STORAGE_FIELDS = {"dtype", "quantization_config", "transformers_version", "_name_or_path"}

failures = 0


def report(ok, text):
    global failures
    failures += not ok
    print(("ok    " if ok else "FAIL  ") + text, flush=True)


def read_weights(folder):
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name != "expected.safetensors":
            weights.update(safetensors.torch.load_file(file))
    return weights


def spread(scale, shape):
    """Block scales as a matrix of `shape`; edge blocks are partial."""
    rows = scale.repeat_interleave(BLOCK, 0)[: shape[0]]
    return rows.repeat_interleave(BLOCK, 1)[:, : shape[1]]


def plain_weights(folder, rounded_to=torch.float32):
    """The weights in float32: dequantised, then rounded to a dtype (the balance bias never is)."""
    stored = read_weights(folder)
    out = {}
    for name, value in stored.items():
        if name.endswith("_scale_inv"):
            continue
        scale = stored.get(name + "_scale_inv")
        value = value.float() if scale is None else value.float() * spread(scale, value.shape)
        keep = name.endswith("e_score_correction_bias")
        out[name] = value if keep else value.to(rounded_to).float()
    return out


def quantise(matrix):
    """Block quantisation in torch: (codes, scales)."""
    rows, cols = matrix.shape
    padded = torch.zeros(-(-rows // BLOCK) * BLOCK, -(-cols // BLOCK) * BLOCK)
    padded[:rows, :cols] = matrix
    blocks = padded.view(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    amax = blocks.abs().amax(dim=(1, 3))
    scale = torch.where(amax == 0, torch.ones_like(amax), amax / 448)
    codes = (matrix / spread(scale, matrix.shape)).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, scale


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(ids).logits.float()


def load(folder):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, attn_implementation="eager")
    return model, sorted(info["missing_keys"]) + sorted(str(x) for x in info.get("mismatched_keys", []))


def reference(folder, weights, scratch):
    """A model of the folder's config with these weights, through a file that torch wrote."""
    scratch.mkdir()
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    (scratch / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(weights, scratch / "model.safetensors", {"format": "pt"})
    return load(scratch)[0]


def configs_differ(a, b):
    x, y = (transformers.AutoConfig.from_pretrained(f).to_dict() for f in (a, b))
    return [k for k in sorted(x.keys() | y.keys()) if k not in STORAGE_FIELDS and x.get(k) != y.get(k)]


def check_case(hadal, folder, scratch):
    expected = safetensors.torch.load_file(folder / "expected.safetensors")
    ids = expected["input_ids"] if "input_ids" in expected else expected["tokens"][:, :-2]

    def convert(source, destination, dtype, *more):
        subprocess.run([hadal, "convert", source, destination, "--dtype", dtype, *more], check=True)
        return destination

    def compare(text, folder_of_hadal, want):
        model, missing = load(folder_of_hadal)
        difference = (logits(model, ids) - want).abs().max().item()
        report(difference <= LIMIT and not missing, f"{folder.name} {text}: logits differ by {difference:.2e}"
               + (f", missing {missing[:3]}" if missing else ""))
        return model

    source = plain_weights(folder)
    want = logits(reference(folder, source, scratch / "source"), ids)
    f32 = convert(folder, scratch / "f32", "f32")
    model = compare("f32", f32, want)
    compare("f32 in shards", convert(folder, scratch / "shards", "f32", "--max-shard-bytes", "200000"), want)
    if "logits" in expected:
        difference = (want - expected["logits"]).abs().max().item()
        report(difference <= LIMIT, f"{folder.name} torch-made reference against the golden logits: {difference:.2e}")
    for dtype in ("bf16", "f16"):
        rounded = reference(folder, plain_weights(folder, DTYPES[dtype]), scratch / f"torch-{dtype}")
        compare(dtype, convert(folder, scratch / dtype, dtype), logits(rounded, ids))

    fp8 = convert(f32, scratch / "fp8", "fp8")
    stored, wrong, matrices = read_weights(fp8), [], 0
    for name, value in stored.items():
        if value.dtype != torch.float8_e4m3fn:
            continue
        matrices += 1
        codes, scale = quantise(source[name])
        same = torch.equal(codes.view(torch.uint8), value.view(torch.uint8))
        if not same or not torch.equal(scale, stored[name + "_scale_inv"]):
            wrong.append(name)
    report(not wrong and matrices > 0, f"{folder.name} fp8: {matrices} matrices, {len(wrong)} differ from torch's")
    dequantised = reference(folder, plain_weights(fp8), scratch / "torch-fp8")
    compare("fp8 dequantised", convert(fp8, scratch / "fp8-f32", "f32"), logits(dequantised, ids))
    for name in ("f32", "bf16", "fp8"):
        differing = configs_differ(folder, scratch / name)
        report(not differing, f"{folder.name} {name}: config fields that differ: {differing}")

    saved = scratch / "saved"
    model.save_pretrained(saved)
    text = subprocess.run([hadal, "inspect", saved, "--json"], capture_output=True, text=True).stdout
    problems = json.loads(text)["problems"]
    report(not problems, f"{folder.name} saved by transformers: hadal inspect finds {len(problems)} problems {problems[:2]}")
    compare("saved by transformers, converted", convert(saved, scratch / "saved-f32", "f32"), want)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hadal", required=True)
    parser.add_argument("--golden", type=pathlib.Path, default=pathlib.Path("tests/golden"))
    parser.add_argument("cases", nargs="*", default=CASES)
    args = parser.parse_args()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for case in args.cases:
        with tempfile.TemporaryDirectory() as scratch:
            check_case(args.hadal, args.golden / case, pathlib.Path(scratch))
    for file in sorted(pathlib.Path("configs").glob("*.json")):
        with tempfile.TemporaryDirectory() as scratch:
            (pathlib.Path(scratch) / "config.json").write_text(file.read_text())
            config = transformers.AutoConfig.from_pretrained(scratch)
        fields = json.loads(file.read_text())
        for other in ("architectures", "model_type", "torch_dtype", "rope_theta", "rope_scaling"):
            fields.pop(other)
        differing = [k for k, v in fields.items() if getattr(config, k, None) != v]
        report(not differing, f"{file}: fields that transformers reads differently: {differing}")
    print("all equal" if failures == 0 else f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
