#!/bin/sh
# A tiny model becomes a reward model, and a judge, of sums and sorted lists.
#   runs/reward_model.sh [FOLDER]
# Leaves FOLDER/start (fine-tuned on the better answers), FOLDER/rm, FOLDER/judge and FOLDER/judge2 (rejective fine-tuning).
set -e
out=${1:-runs/out/reward-model}
mkdir -p "$out"
for kind in sort addition; do
  for part in train held-out; do
    count=4000 && [ $part = train ] || count=400
    hadal tasks preferences $kind --count $count --part $part --out "$out/$kind-$part.jsonl"
  done
done
for part in train held-out; do python3 runs/preferences.py "$out" $part sort addition; done
hadal tokenizer train --kind char --data "$out/text-train.txt" --out "$out/tokenizer"
hadal train --preset micro --data.tokenizer "$out/tokenizer" --data.chat "$out/chats-train.jsonl" \
  --data.held_out "$out/chats-held-out.jsonl" --out "$out/start" --steps 150 --batch 16 --length 128 --lr 3e-3 --seed 1
hadal reward-model train "$out/start" --data "$out/pairs-train.jsonl" --held-out "$out/pairs-held-out.jsonl" \
  --out "$out/rm" --batch 32 --length 200 --lr 1e-3
hadal sft "$out/start" --data "$out/judged-train.jsonl" --held-out "$out/judged-held-out.jsonl" --out "$out/judge" \
  --steps 300 --batch 8 --length 512 --lr 2e-3
head -n 400 "$out/judged-train.jsonl" > "$out/judged-some.jsonl"
hadal judge "$out/judge" --data "$out/judged-some.jsonl" --votes 3 --keep "$out/right.jsonl"
hadal sft "$out/judge" --data "$out/right.jsonl" --out "$out/judge2" --epochs 1 --batch 8 --length 512 --lr 3e-4
head -n 200 "$out/judged-held-out.jsonl" > "$out/judged-measured.jsonl"
hadal judge "$out/judge2" --data "$out/judged-measured.jsonl" --votes 8
