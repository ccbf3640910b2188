#!/bin/sh
# A tiny model learns a task from a few worked answers, and then from rewards for its own answers; beside it the same
# start is fine-tuned on the worked answers for as long, each on half of the cores.
#   runs/grpo_task.sh sort-digits|addition|countdown|cpp-expression [FOLDER [SEED [MINUTES]]]
# Leaves FOLDER/start, FOLDER/sft (fine-tuned on), FOLDER/grpo, their answers to held-out tasks, and curves.html.
set -e
kind=${1:?sort-digits, addition, countdown or cpp-expression}
out=${2:-runs/out/$kind}
seed=${3:-1}
minutes=${4:-4}
half=$((($(nproc) + 1) / 2))
prompts=32 passes=1
case $kind in
  sort-digits) level=6 demos=100 steps=400 tokens=64 ;;
  addition) level=2 demos=300 steps=600 tokens=48 ;;
  countdown) level=3 demos=300 steps=600 tokens=64 ;;
  cpp-expression) level=3 demos="60 90 120" steps=400 tokens=96 prompts=16 passes=4 ;;  # answers are dear: each is learned from often
esac
mkdir -p "$out"
make="hadal tasks make $kind --level $level --seed $seed"
$make --count 6000 --out "$out/tasks.jsonl"
$make --count 300 --part held-out --demonstrations --out "$out/held.jsonl"
$make --count 1000 --demonstrations --out "$out/text.jsonl"
if [ $kind = cpp-expression ]; then # copying is learned from text: of few answers alone some seeds do not learn it
  hadal data stories --bytes 3000000 --seed "$seed" --out "$out/stories.txt"
  hadal tokenizer train --kind bpe --vocab-size 512 --data "$out/stories.txt" --data "$out/text.jsonl" --out "$out/tokenizer"
  hadal train --preset micro --data "$out/stories.txt" --data.tokenizer "$out/tokenizer" --out "$out/pretrain" \
    --steps 1500 --batch 16 --length 128 --lr 5e-3 --seed "$seed"
  begin="--model.start $out/pretrain"
else
  hadal tokenizer train --kind bpe --vocab-size 400 --data "$out/text.jsonl" --out "$out/tokenizer"
  begin="--preset micro --data.tokenizer $out/tokenizer"
fi
tail -n 100 "$out/tasks.jsonl" >"$out/probe.jsonl"
for count in $demos; do # where there is a choice, the fewest answers that make a start which is right in a fifth of its tries
  rm -rf "$out/start"
  $make --count $count --demonstrations --out "$out/demos.jsonl"
  hadal train $begin --data.chat "$out/demos.jsonl" --data.held_out "$out/held.jsonl" \
    --out "$out/start" --steps $steps --batch 16 --length 128 --lr 3e-3 --seed "$seed"
  [ "$count" != "$demos" ] || break
  hadal eval "$out/start" --task "$out/probe.jsonl" --max-tokens $tokens | tee "$out/probe.txt"
  ! awk '/^avg@1/ { exit $2 < 0.2 }' "$out/probe.txt" || break
done
hadal sft "$out/start" --data "$out/demos.jsonl" --held-out "$out/held.jsonl" --out "$out/sft" --minutes "$minutes" \
  --batch 16 --length 128 --lr 3e-4 --seed "$seed" --threads $half >"$out/sft.log" 2>&1 &
hadal grpo "$out/start" --profile tiny-cpu --tasks "$out/tasks.jsonl" --held-out "$out/held.jsonl" --out "$out/grpo" \
  --steps 1000000 --minutes "$minutes" --prompts $prompts --loss.iterations $passes --max-tokens $tokens --loss.advantage none --lr 1e-4 --eval.every 100 --seed "$seed" --threads $half
wait $!
for model in start sft grpo; do
  hadal eval "$out/$model" --task "$out/held.jsonl" --max-tokens $tokens --out "$out/$model-greedy.jsonl"
  hadal eval "$out/$model" --task "$out/held.jsonl" --max-tokens $tokens --samples 4 --temperature 1 --seed "$seed" --out "$out/$model-sampled.jsonl"
done
for way in greedy sampled; do hadal tasks compare "$out/sft-$way.jsonl" "$out/grpo-$way.jsonl"; done
hadal plot "$out/start" "$out/sft" "$out/grpo" --out "$out/curves.html"
