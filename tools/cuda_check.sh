#!/usr/bin/env bash
# What a machine with an NVIDIA GPU says about hadal's programs: tests, short trainings, speed. Nothing is built here.
#   tools/cuda_check.sh --torch DIR --bin DIR [--golden DIR] [--text FILE] [--model config.json] [--logs DIR]
# --torch: folder torch/lib of an installation of the torch that hadal is built with, CUDA included. --bin: where
# hadal, hadal-compute, cuda_test and train_bench are. --text: what short trainings learn. --model: whose speed is
# measured, e.g. runs/small-model.json. Each step has a time limit and a log; a failed one does not
# end the others. Under four minutes in all.
set -uo pipefail

torch="" bin="" golden="" text="" model="" logs="cuda-logs"
while [ $# -gt 1 ]; do
  case $1 in
    --torch) torch=$2 ;;
    --bin) bin=$2 ;;
    --golden) golden=$2 ;;
    --text) text=$2 ;;
    --model) model=$2 ;;
    --logs) logs=$2 ;;
    *) echo "no flag $1" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$torch" ] && [ -n "$bin" ] || { sed -n 2,8p "$0"; exit 2; }
mkdir -p "$logs"
logs=$(cd "$logs" && pwd) bin=$(cd "$bin" && pwd)
export HADAL_LIBTORCH_CUDA=$torch HADAL_REQUIRE_CUDA=1 TORCH_SHOW_CPP_STACKTRACES=1
# All of LibTorch from one folder, whatever the programs were linked with; bin/lib: what else they need.
export LD_LIBRARY_PATH=$torch:$bin/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
[ -z "$golden" ] || HADAL_GOLDEN=$(cd "$golden" && pwd) && export HADAL_GOLDEN
here=$(mktemp -d)
[ -z "$text" ] || cp "$text" "$here/text.txt"
[ -z "$model" ] || cp "$model" "$here/model.json"
cd "$here" || exit 1
nvidia-smi --query-gpu=timestamp,memory.used,utilization.gpu,power.draw,clocks.sm --format=csv -l 1 >"$logs/gpu.log" 2>&1 &
trap 'kill '$!' 2>/dev/null; rm -rf "$here"' EXIT

failed=0
# step NAME SECONDS CMD...: its log, its time, its last lines.
step() {
  local name=$1 limit=$2 begin=$SECONDS rc
  shift 2
  timeout "$limit" "$@" >"$logs/$name.log" 2>&1 </dev/null
  rc=$?
  echo "=== $name: exit $rc after $((SECONDS - begin)) s"
  if [ $rc -ne 0 ]; then
    failed=$((failed + 1))
    grep -aE -A4 "Failure$|rror:|what\(\)" "$logs/$name.log" | cut -c1-400 | head -n 40
  fi
  tail -n "${show:-8}" "$logs/$name.log" | cut -c1-300
}

libraries() {
  uname -a
  ldd --version | head -1
  nvidia-smi || true
  for program in hadal hadal-compute cuda_test train_bench; do
    echo "-- $program"
    ldd "$bin/$program"
  done
  "$bin/hadal" info
}
libraries >"$logs/machine.log" 2>&1
cat "$logs/machine.log"

step first 60 "$bin/cuda_test" --gtest_filter='On/Plain.AStepInF32*cuda'
if ! grep -aq "\[  PASSED  \] 1 test" "$logs/first.log"; then
  LD_DEBUG=libs timeout 60 "$bin/cuda_test" --gtest_filter='On/Plain.AStepInF32*cuda' >"$logs/loader.log" 2>&1
  grep -a "error" "$logs/loader.log" | head -n 5
fi
show=16 step tests 90 "$bin/cuda_test" --gtest_filter='*cuda'

train() { # NAME SECONDS FLAGS...
  local name=$1 limit=$2
  shift 2
  step "$name" "$limit" "$bin/hadal" train --data text.txt --seed 1 --checkpoint.every 50 "$@"
}
if [ -s text.txt ]; then
  train train-f32 40 --out f32 --steps 100 --batch 16 --length 128 --compute.device cuda
  train train-f32-on 40 --out f32 --steps 120 --batch 16 --length 128 --compute.device cuda --force-config
  train train-bf16 40 --out bf16 --steps 100 --batch 16 --length 128 --compute.device cuda --compute.precision bf16
  train train-cpu 60 --out cpu --steps 100 --batch 16 --length 128 --batch.workers 1
  for run in f32 bf16 cpu; do
    echo "-- $run: losses of steps 1, 10, 50, 100"
    [ -e "$run/metrics.jsonl" ] || continue
    for n in 1 10 50 100; do grep -a "\"step\":$n," "$run/metrics.jsonl" | grep -aoE '"loss":[0-9.]+' | head -1; done
    cp "$run/metrics.jsonl" "$logs/metrics-$run.jsonl"
  done
  step text 20 "$bin/hadal" run f32 -p "The " --max-tokens 40
fi

speed() { # NAME FLAGS...
  local name=$1
  shift
  step "$name" 45 "$bin/train_bench" --config model.json --device cuda --steps 8 "$@"
}
if [ -s model.json ]; then
  speed bench-bf16-16 --batch 16 --length 1024 --precision bf16
  speed bench-bf16-64 --batch 64 --length 1024 --precision bf16
  speed bench-f32-16 --batch 16 --length 1024 --precision f32
  speed bench-bf16-long --batch 4 --length 4096 --precision bf16
fi
echo "=== $failed steps failed, $SECONDS s in all, logs in $logs"
exit $((failed > 0))
