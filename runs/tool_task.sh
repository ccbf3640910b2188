#!/bin/sh
# A tiny model learns to use a calculator: products of two numbers of three digits, hopeless without it.
#   runs/tool_task.sh [FOLDER [SEED]]
# Leaves FOLDER/direct (fine-tuned on 8,000 products without the tool), FOLDER/start (on 4,000 calls), FOLDER/grpo and grpo.html.
set -e
out=${1:-runs/out/tool}
seed=${2:-1}
python3 runs/tool_task.py "$out" "$seed" 4000
hadal tokenizer train --kind char --data "$out/direct.jsonl" --out "$out/tokenizer" \
  --special '<｜tool▁calls▁begin｜>' --special '<｜tool▁calls▁end｜>' --special '<｜tool▁call▁begin｜>' --special '<｜tool▁call▁end｜>' \
  --special '<｜tool▁outputs▁begin｜>' --special '<｜tool▁outputs▁end｜>' --special '<｜tool▁output▁begin｜>' \
  --special '<｜tool▁output▁end｜>' --special '<｜tool▁sep｜>'
train() {  # FOLDER DATA STEPS
  hadal train --preset micro --data.tokenizer "$out/tokenizer" --data.chat "$2" \
    --data.held_out "$out/demos_held.jsonl" --out "$1" --steps "$3" --batch 16 --length 128 --lr 3e-3 --seed "$seed"
}
train "$out/direct" "$out/direct.jsonl" 600
hadal eval "$out/direct" --task "$out/held.jsonl" --max-tokens 96
train "$out/start" "$out/demos.jsonl" 900
hadal grpo "$out/start" --profile tiny-cpu --tasks "$out/tasks.jsonl" --held-out "$out/held.jsonl" --out "$out/grpo" \
  --rollout.tools calculator --rollout.tell_tools false --rollout.turns 3 --max-tokens 160 --steps 600 --lr 1e-4 --prompts 16 --loss.advantage none \
  --eval.every 50 --seed "$seed"
hadal eval "$out/grpo" --task "$out/held.jsonl" --max-tokens 160 --tools calculator --untold-tools
hadal eval "$out/grpo" --task "$out/held.jsonl" --max-tokens 160
hadal plot "$out/grpo" --out "$out/grpo.html" --smooth 9
