#!/bin/sh
# A small model learns needles in texts of 64 tokens and is extended by YaRN to 512 and then 2,048 (docs/long-context.md).
#   runs/long_context.sh [FOLDER [SEED [THREADS]]]
# Leaves the models, needles/*.json (right answers by length and depth), loss/*.json (by position), short/*.json and curves.html.
set -e
out=${1:-runs/out/long-context}
seed=${2:-1}
threads=${3:-1}
mkdir -p "$out/needles" "$out/loss" "$out/short"

texts() { # LENGTH COUNT: to train on, and to measure on
  [ -e "$out/measure-$1/manifest.json" ] && return
  hadal tasks make needle --level "$1" --count "$2" --seed "$seed" --demonstrations --out "$out/train-$1.jsonl"
  hadal tasks make needle --level "$1" --count 110 --seed "$seed" --part held-out --demonstrations --out "$out/held-$1.jsonl"
  if [ "$1" = 64 ]; then
    sed 's/.*"text":"\([^"]*\)".*/\1/' "$out/train-64.jsonl" | head -n 4000 >"$out/text.txt"
    hadal tokenizer train --data "$out/text.txt" --vocab-size 1000 --min-pair-count 20 --out "$out/tokenizer" # a token for each word
  fi
  hadal data build "$out/data-$1" --tokenizer "$out/tokenizer" --format jsonl --input "$out/train-$1.jsonl" --overwrite
  hadal data build "$out/measure-$1" --tokenizer "$out/tokenizer" --format jsonl --input "$out/held-$1.jsonl" --overwrite
}
texts 64 48000
texts 512 2000
texts 2048 400
for length in 128 256 1024; do
  hadal tasks make needle --level $length --count 110 --seed "$seed" --part held-out --out "$out/held-$length.jsonl"
done
hadal tasks mix "$out"/held-64.jsonl "$out"/held-128.jsonl "$out"/held-256.jsonl "$out"/held-512.jsonl --out "$out/to-512.jsonl"
hadal tasks mix "$out/to-512.jsonl" "$out/held-1024.jsonl" "$out/held-2048.jsonl" --out "$out/to-2048.jsonl"

train() { # NAME LENGTH SOURCES FLAGS...
  name=$1 length=$2 sources=$3
  shift 3
  hadal train --data.sources "$sources" --data.packing best_fit --length "$length" --out "$out/$name" \
    --seed "$seed" --threads "$threads" --schedule.kind cosine --schedule.floor 0.05 --data.held_out_share 0.02 "$@"
}
longer() { # MODEL POSITIONS NAME: the same weights, and only the limit is another
  rm -rf "$out/$3" && mkdir "$out/$3"
  cp "$out/$1"/*.json "$out/$1/model.safetensors" "$out/$3"
  sed -i "s/\"max_position_embeddings\": *[0-9]*/\"max_position_embeddings\": $2/" "$out/$3/config.json"
}
train base 64 "$out/data-64" --model.config runs/long-context-model.json --steps 3000 --batch 16 --lr 4e-3
longer base 512 plain-start
longer base 2048 plain
phase="--data.mask_documents true --batch 8 --lr 1e-3 --warmup 10" # a part of the texts stays short: else what is particular to them is forgotten
to_512="$out/data-64=0.6,$out/data-512=0.4" to_2048="$out/data-64=0.6,$out/data-2048=0.4"
train yarn-start 512 "$to_512" --model.start "$out/base" --model.context 512 --steps 1 --lr 1e-12
train yarn-512 512 "$to_512" --model.start "$out/base" --model.context 512 --steps 400 $phase
train yarn-2048 2048 "$to_2048" --model.start "$out/yarn-512" --model.context 2048 --steps 100 $phase --batch.micro 2
train plain-512 512 "$to_512" --model.start "$out/plain-start" --steps 400 $phase

measure() { # MODEL LENGTH: needles up to it, loss by position in texts of it and in texts of 64
  hadal eval "$out/$1" --task "$out/to-$2.jsonl" --by length,depth --max-tokens 1 --template none --threads "$threads" --json >"$out/needles/$1.json"
  for loss in "loss $2 $2" "short 64 63"; do
    set -- "$1" "$2" $loss
    hadal eval "$out/$1" --data "$out/measure-$4" --by-document --length "$5" --positions 16 --threads "$threads" --json >"$out/$3/$1.json"
  done
}
measure plain 2048
measure yarn-start 512
measure yarn-512 512
measure plain-512 512
measure yarn-2048 2048
hadal plot "$out"/needles/*.json "$out"/loss/*.json --title "Needles and loss by position, trained at 64 tokens" --out "$out/curves.html"
