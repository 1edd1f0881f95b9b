#!/usr/bin/env bash
# Gemma 4 E4B with random weights of the true size, on one machine with a GPU, in about eight minutes:
#
#     benchmarks/gpu_gemma4.sh OUT TOKENIZER ARTICLES [small]
#
# OUT is a folder for results and logs, TOKENIZER one with Gemma 3's tokenizer files, ARTICLES a JSONL file with content
# and title. Plain transformers and PEFT, titlegen, plain again; Unsloth where it is installed; the kernels for heads of
# 512; export and verification. A part that fails leaves its log and does not stop the others. With `small` the model is
# narrow and what needs a GPU is left out, to try the script.
set -uo pipefail

[ $# -ge 3 ] || { echo "usage: $0 OUT TOKENIZER ARTICLES [small]" >&2; exit 2; }
out=$(realpath "$1") tokenizer=$(realpath "$2") articles=$(realpath "$3") small=${4:-}
root=$(cd "$(dirname "$0")/.." && pwd)
work=${BENCHMARK_WORK:-$out/work}
python=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" TQDM_DISABLE=1
started=$SECONDS failed=0
mkdir -p "$out" "$work"

# run NAME SECONDS COMMAND...: its output goes to OUT/NAME.log.
run() {
  local name=$1 limit=$2 before=$SECONDS code=0
  shift 2
  timeout "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  echo "$name: exit $code after $((SECONDS - before)) s, $((SECONDS - started)) s in all"
  [ $code -eq 0 ] || { tail -n 3 "$out/$name.log"; failed=1; }
  return $code
}

# train NAME SECONDS ROLE OPTIONS...
train() {
  local name=$1 limit=$2 role=$3
  shift 3
  run "$name" "$limit" "$python" "$root/benchmarks/gpu_train.py" "$role" "$out" --name "$name" --family gemma4 \
    --model "$work/e4b" --articles "$articles" --work "$work/$name" "$@"
}

titlegen() {
  train "$1" 240 titlegen --set 'backend="peft"' --set logging_steps=2 --set num_train_epochs=1 "${@:2}"
}

run build 120 "$python" "$root/benchmarks/gpu_train.py" build "$out" --family gemma4 --model "$work/e4b" \
  --tokenizer "$tokenizer" ${small:+--small}
if [ -n "$small" ]; then
  run attention 120 "$python" "$root/benchmarks/gpu_attention.py" "$out" --small --rows 3
  titlegen titlegen_1 --shape pts --rows 12 --set load_in_4bit=false --set max_length=160 \
    --set per_device_train_batch_size=2 --set gradient_accumulation_steps=1 --set auto_batch=false
else
  run attention 60 "$python" "$root/benchmarks/gpu_attention.py" "$out"
  train plain_1 90 plain --steps 6
  titlegen titlegen_1 --shape fixed --rows 384 --set compile=true
  train plain_2 90 plain --steps 6
  "$python" -c "import unsloth" 2>/dev/null && train unsloth_1 150 unsloth --steps 6
fi
run export 300 "$python" "$root/benchmarks/gpu_export.py" "$out" --tokenizer "$tokenizer" --articles "$articles" \
  --work "$work/export" --family gemma4 ${small:+--small}
exit $failed
