#!/bin/sh
# A tiny model learns a task: a few demonstrations, then rewards for its own answers.
#   runs/small_task.sh sort|addition [FOLDER [SEED]]
# Leaves FOLDER/start (fine-tuned), FOLDER/more (fine-tuned as many steps again), FOLDER/grpo and grpo.html.
set -e
task=${1:?sort or addition}
out=${2:-runs/out/$task}
seed=${3:-1}
if [ "$task" = sort ]; then demos=400 steps=300 rl=1000; else demos=1500 steps=300 rl=1000; fi
python3 runs/small_tasks.py "$task" "$out" "$seed" $demos
hadal tokenizer train --kind char --data "$out/text.txt" --out "$out/tokenizer"
hadal train --config runs/tiny-task-model.json --data.tokenizer "$out/tokenizer" --data.chat "$out/demos.jsonl" \
  --data.held_out "$out/demos_held.jsonl" --out "$out/start" --steps $steps --batch 16 --length 128 --lr 3e-3 --seed "$seed"
hadal sft "$out/start" --data "$out/demos.jsonl" --held-out "$out/demos_held.jsonl" --out "$out/more" --steps $rl \
  --batch 16 --length 128 --lr 3e-4 --seed "$seed"
hadal grpo "$out/start" --profile tiny-cpu --tasks "$out/tasks.jsonl" --held-out "$out/held.jsonl" --out "$out/grpo" \
  --max-tokens 40 --steps $rl --lr 1e-4 --prompts 32 --eval.every 250 --seed "$seed"
hadal plot "$out/grpo" --out "$out/grpo.html"
