#!/bin/sh
# A tiny model becomes a reward model, and a judge, of sums and sorted lists; a policy learns from the reward model, with and without KL.
#   runs/reward_model.sh [FOLDER]
# Leaves FOLDER/start (fine-tuned on the best answers), rm, policy, kl and free (GRPO), grpo.html, judge and judge2 (rejective fine-tuning).
set -e
out=${1:-runs/out/reward-model}
mkdir -p "$out"
for part in train held-out; do
  count=6000 && [ $part = train ] || count=500
  hadal tasks preferences sort --level 3 --count $count --part $part --out "$out/sort-$part.jsonl"
  hadal tasks preferences addition --level 2 --count $count --part $part --out "$out/addition-$part.jsonl"
  python3 runs/preferences.py "$out" $part sort addition
done
hadal tokenizer train --kind char --data "$out/text-train.txt" --out "$out/tokenizer"
hadal train --preset micro --data.tokenizer "$out/tokenizer" --data.chat "$out/chats-train.jsonl" \
  --data.held_out "$out/chats-held-out.jsonl" --out "$out/start" --steps 1000 --batch 16 --length 128 --lr 3e-3 --seed 1

hadal reward-model train "$out/start" --data "$out/pairs-train.jsonl" --held-out "$out/pairs-held-out.jsonl" \
  --out "$out/rm" --batch 32 --length 200 --lr 4e-4 --run.epochs 2
hadal reward-model eval "$out/rm" --data "$out/pairs-held-out.jsonl"

# The policy begins as the same model. Accuracy and format of weight 0 are watched: the rule behind the preferences.
for part in train held-out; do
  count=3000 && [ $part = train ] || count=200
  hadal tasks make sort --level 3 --count $count --part $part --seed 7 --out "$out/tasks-sort-$part.jsonl"
  hadal tasks make addition --level 2 --count $count --part $part --seed 7 --out "$out/tasks-addition-$part.jsonl"
  paste -d '\n' "$out/tasks-sort-$part.jsonl" "$out/tasks-addition-$part.jsonl" > "$out/tasks-$part.jsonl"
done
policy() {  # FOLDER BETA
  hadal grpo "$out/start" --profile tiny-cpu --tasks "$out/tasks-train.jsonl" --held-out "$out/tasks-held-out.jsonl" --out "$1" \
    --reward "rm:$out/rm:1" --reward accuracy:0 --reward format:0 --beta "$2" --max-tokens 100 --steps 100 --lr 3e-4 --eval.every 25 --seed 1
}
policy "$out/kl" 0.1
policy "$out/free" 0
hadal plot "$out/kl" "$out/free" --smooth 5 --out "$out/grpo.html"

hadal sft "$out/start" --data "$out/judged-train.jsonl" --held-out "$out/judged-held-out.jsonl" --out "$out/judge" \
  --steps 300 --batch 8 --length 512 --lr 2e-3
head -n 400 "$out/judged-train.jsonl" > "$out/judged-some.jsonl"
hadal judge "$out/judge" --data "$out/judged-some.jsonl" --votes 3 --max-tokens 250 --keep "$out/right.jsonl"
hadal sft "$out/judge" --data "$out/right.jsonl" --out "$out/judge2" --epochs 1 --batch 8 --length 512 --lr 3e-4
hadal judge "$out/judge2" --data "$out/judged-held-out.jsonl" --votes 8 --max-tokens 250
