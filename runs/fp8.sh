#!/bin/sh
# FP8 training against BF16 training, and what V3 reports to fail (docs/fp8.md).
#   runs/fp8.sh TEXT [FOLDER [THREADS]]
# TEXT of the document: python3 runs/mixed_text.py TEXT tinyshakespeare.txt gsm8k_train.jsonl
# Leaves a run folder for each, the errors in FOLDER/errors.txt and the curves in FOLDER/fp8.html.
set -e
text=${1:?a UTF-8 text}
out=${2:-runs/out/fp8}
threads=${3:-1}
mkdir -p "$out"
[ -e "$out/tokenizer" ] || hadal tokenizer train --vocab-size 4096 --data "$text" --out "$out/tokenizer"
train() { # NAME SEED KEYS...: does nothing for a run that is finished
  name=$1 seed=$2
  shift 2
  hadal train --config runs/fp8.toml --data "$text" --data.tokenizer "$out/tokenizer" --out "$out/$name-$seed" \
    --seed "$seed" --threads "$threads" --batch.workers 1 "$@"
}
for seed in 1 2 3; do
  train bf16 $seed --compute.precision bf16
  train fp8 $seed --compute.precision fp8 --run.also_export fp8
done
for seed in 1 2 3; do # the noise: BF16 again, its gradients added in another order
  train order $seed --compute.precision bf16 --batch.micro 8
done
train tensor 1 --compute.precision fp8 --fp8.activations tensor --fp8.gradients tensor --fp8.weights tensor
train block 1 --compute.precision fp8 --fp8.gradients block
train e5m2 1 --compute.precision fp8 --fp8.gradient_format e5m2
train hopper 1 --compute.precision fp8 --fp8.sums hopper
train unpromoted 1 --compute.precision fp8 --fp8.sums hopper-unpromoted
python3 runs/loss_error.py "$out" | tee "$out/errors.txt"
hadal plot "$out"/bf16-1 "$out"/fp8-1 "$out"/tensor-1 "$out"/block-1 "$out"/unpromoted-1 --smooth 0.9 --out "$out/fp8.html"
