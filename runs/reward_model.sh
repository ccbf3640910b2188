#!/bin/sh
# A tiny model becomes a reward model, and a judge, of sorted digits; a policy learns from the reward model, with and without KL.
#   runs/reward_model.sh [FOLDER [SEED]]
# Leaves FOLDER/start (fine-tuned on the best answers), rm, policy, rm-own (which has seen the policy's answers too), kl and free
# (GRPO), grpo.html, judge and judge2 (rejective fine-tuning).
set -e
out=${1:-runs/out/reward-model}
seed=${2:-1}
mkdir -p "$out"
for part in train held-out; do
  count=12000 && [ $part = train ] || count=1000
  hadal tasks preferences sort-digits --level 5 --count $count --part $part --seed "$seed" --out "$out/sort-digits-$part.jsonl"
  python3 runs/preferences.py "$out" $part sort-digits
  count=6000 && [ $part = train ] || count=300
  hadal tasks make sort-digits --level 5 --count $count --part $part --seed $((seed + 6)) --out "$out/tasks-$part.jsonl"
done
hadal tokenizer train --kind char --data "$out/text-train.txt" --out "$out/tokenizer"
train() {  # FOLDER CHATS STEPS
  hadal train --preset micro --data.tokenizer "$out/tokenizer" --data.chat "$2" --data.held_out "$out/chats-held-out.jsonl" \
    --out "$1" --steps "$3" --batch 16 --length 128 --lr 3e-3 --seed "$seed"
}
reward_model() {  # FOLDER START PAIRS HELD_OUT
  hadal reward-model train "$2" --data "$3" --held-out "$4" --out "$1" --batch 32 --length 200 --lr 4e-4 --run.epochs 2
  hadal reward-model eval "$1" --data "$4"
}
train "$out/start" "$out/chats-train.jsonl" 500
reward_model "$out/rm" "$out/start" "$out/pairs-train.jsonl" "$out/pairs-held-out.jsonl"

# The policy has seen 150 answers. Its own right and wrong ones, told apart by the rule, make the reward model know its mistakes.
head -n 150 "$out/chats-train.jsonl" > "$out/chats-few.jsonl"
train "$out/policy" "$out/chats-few.jsonl" 300
for part in train held-out; do
  hadal eval "$out/policy" --task "$out/tasks-$part.jsonl" --max-tokens 80 --samples 16 --temperature 1 --seed "$seed" --out "$out/own-$part.jsonl"
  python3 runs/own_pairs.py "$out/tasks-$part.jsonl" "$out/own-$part.jsonl" "$out/own-pairs-$part.jsonl"
  cat "$out/pairs-$part.jsonl" "$out/own-pairs-$part.jsonl" > "$out/all-pairs-$part.jsonl"
done
reward_model "$out/rm-own" "$out/rm" "$out/all-pairs-train.jsonl" "$out/all-pairs-held-out.jsonl"

# Accuracy and format of weight 0 are watched: the rule behind the preferences.
policy() {  # FOLDER BETA
  hadal grpo "$out/policy" --profile tiny-cpu --tasks "$out/tasks-train.jsonl" --held-out "$out/tasks-held-out.jsonl" --out "$1" \
    --reward "rm:$out/rm-own:1" --reward accuracy:0 --reward format:0 --beta "$2" --loss.advantage none --prompts 16 --max-tokens 80 \
    --steps 150 --lr 1e-4 --eval.every 25 --seed "$seed"
}
policy "$out/kl" 0.2
policy "$out/free" 0
hadal plot "$out/kl" "$out/free" --smooth 5 --out "$out/grpo.html"

hadal sft "$out/start" --data "$out/judged-train.jsonl" --held-out "$out/judged-held-out.jsonl" --out "$out/judge" \
  --steps 400 --batch 8 --length 512 --lr 2e-3
head -n 250 "$out/judged-held-out.jsonl" > "$out/judged-few.jsonl"
hadal judge "$out/judge" --data "$out/judged-few.jsonl" --votes 8 --max-tokens 300
head -n 400 "$out/judged-train.jsonl" > "$out/judged-some.jsonl"
hadal judge "$out/judge" --data "$out/judged-some.jsonl" --votes 3 --max-tokens 300 --keep "$out/right.jsonl"
hadal sft "$out/judge" --data "$out/right.jsonl" --out "$out/judge2" --epochs 1 --batch 8 --length 512 --lr 3e-4
hadal judge "$out/judge2" --data "$out/judged-few.jsonl" --votes 8 --max-tokens 300
