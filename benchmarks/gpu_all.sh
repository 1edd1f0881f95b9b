#!/usr/bin/env bash
# Speed, memory, export and latency at E4B's size with random weights, one after another on one machine with a GPU:
#
#     benchmarks/gpu_all.sh OUT TOKENIZER ARTICLES [PART ...]
#
# OUT is a folder for results and logs, TOKENIZER one with Gemma's tokenizer files, ARTICLES a JSONL file with content
# and title. PART is speed, small, curves, generate, export or latency; all of them when none is named. A part that fails
# leaves its log and does not stop the others. latency needs export before it, and llama-server and llama-quantize on
# PATH, built for the card.
set -uo pipefail

[ $# -ge 3 ] || { echo "usage: $0 OUT TOKENIZER ARTICLES [PART ...]" >&2; exit 2; }
out=$(realpath "$1") tokenizer=$(realpath "$2") articles=$(realpath "$3")
shift 3
[ $# -gt 0 ] || set -- speed small curves generate export latency
root=$(cd "$(dirname "$0")/.." && pwd)
work=${BENCHMARK_WORK:-$out/work}
python=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" TQDM_DISABLE=1
started=$SECONDS failed=0
mkdir -p "$out" "$work"

# run NAME COMMAND...: its output goes to OUT/NAME.log.
run() {
  local name=$1 before=$SECONDS code=0
  shift
  "$@" >"$out/$name.log" 2>&1 || code=$?
  echo "$name: exit $code after $((SECONDS - before)) s, $((SECONDS - started)) s in all"
  [ $code -eq 0 ] || { tail -n 3 "$out/$name.log"; failed=1; }
  return $code
}

# The model is made for the first part that needs it; its tokenizer is written last.
model() {
  [ -f "$work/e4b/tokenizer.json" ] ||
    run build "$python" "$root/benchmarks/gpu_train.py" build "$out" --model "$work/e4b" --tokenizer "$tokenizer"
}

# train NAME ROLE OPTIONS...
train() {
  local name=$1 role=$2
  shift 2
  model && run "$name" "$python" "$root/benchmarks/gpu_train.py" "$role" "$out" --name "$name" --model "$work/e4b" \
    --articles "$articles" --work "$work/$name" "$@"
}

# titlegen NAME OPTIONS...: logs often, compiles.
titlegen() {
  local name=$1
  shift
  train "$name" titlegen --set logging_steps=5 --set compile=true --set num_train_epochs=1 "$@"
}

# variant NAME ROUND
variant() {
  case $1 in
    plain) train "plain_$2" plain --steps 10 ;;
    unsloth) train "unsloth_$2" unsloth --steps 6 ;;
    titlegen) titlegen "titlegen_$2" --shape fixed --rows 640 ;;
    titlegen_pts) titlegen "titlegen_pts_$2" --shape pts --rows 960 ;;
  esac
}

# There and back, around the one that takes longest: what the machine does meanwhile meets all of them.
measure_speed() {
  for name in titlegen_pts titlegen plain unsloth; do variant "$name" 1; done
  for name in plain titlegen titlegen_pts; do variant "$name" 2; done
}

measure_small() {
  titlegen low_memory --shape pts --rows 320 --set low_memory=true --set logging_steps=2
  titlegen limit_24 --shape pts --rows 640 --limit-gib 24
  titlegen limit_13 --shape fixed --rows 320 --limit-gib 13 --set logging_steps=2
}

measure_curves() { train curves curves --shape pts --rows 100 --steps 50; }

measure_generate() {
  model && run generate "$python" "$root/benchmarks/gpu_generate.py" "$out" "$work/e4b" --articles "$articles"
}

measure_export() {
  run export "$python" "$root/benchmarks/gpu_export.py" "$out" --tokenizer "$tokenizer" --articles "$articles" \
    --work "$work/export"
}

measure_latency() {
  local gguf=$work/export/gguf files=()
  for type in Q8_0 Q4_K_M; do
    run "quantize_$type" llama-quantize "$gguf/titlegen-BF16.gguf" "$gguf/titlegen-$type.gguf" "$type" "$(nproc)" &&
      files+=("$gguf/titlegen-$type.gguf")
  done
  [ ${#files[@]} -gt 0 ] && run latency "$python" "$root/benchmarks/gpu_latency.py" "$out" "$work/export/final-hf" \
    "${files[@]}" --articles "$articles"
}

for part in "$@"; do
  declare -F "measure_$part" >/dev/null || { echo "no part $part" >&2; exit 2; }
done
for part in "$@"; do
  "measure_$part"
done
exit $failed
