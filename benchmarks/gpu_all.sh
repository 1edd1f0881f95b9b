#!/usr/bin/env bash
# Speed, memory, export and latency at E4B's size with random weights, one after another on one machine with a GPU:
#
#     [FAMILY=gemma4] [SMALL=1] benchmarks/gpu_all.sh OUT TOKENIZER ARTICLES [PART ...]
#
# OUT is a folder for results and logs, TOKENIZER one with Gemma 3's tokenizer files, ARTICLES a JSONL file with content,
# title and date. PART is speed, first, small, fp8, curves, curves_fp8, resume, quality, generate, lookup, desk,
# attention, export or latency, or one training with the number of its turn, as plain_1, unsloth_1, titlegen_1,
# titlegen_pts_1, titlegen_fp8_1 or titlegen_pts_fp8_1; all but quality (21 trainings) and attention when none is named.
# What OUT has a result of already is not measured again, so that a run that was cut off goes on. A part that fails
# leaves its log and does not stop the others. latency needs export before it, and llama-server and llama-quantize on
# PATH, built for the card.
#
# FAMILY is gemma3n or gemma4. With SMALL the model is narrow and its rows are short, to try the parts without a GPU.
set -uo pipefail

[ $# -ge 3 ] || { echo "usage: $0 OUT TOKENIZER ARTICLES [PART ...]" >&2; exit 2; }
mkdir -p "$1"
out=$(realpath "$1") tokenizer=$(realpath "$2") articles=$(realpath "$3")
shift 3
[ $# -gt 0 ] || set -- first speed small fp8 curves curves_fp8 resume generate lookup desk export latency
root=$(cd "$(dirname "$0")/.." && pwd)
family=${FAMILY:-gemma3n} small=${SMALL:+--small} small_steps=${SMALL:+1}
work=${BENCHMARK_WORK:-$out/work}
python=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" TQDM_DISABLE=1
started=$SECONDS failed=0
mkdir -p "$work"
case $family in gemma3n) suffix=e4b ;; *) suffix=${family}_e4b ;; esac

# run NAME COMMAND...: its output goes to OUT/NAME.log.
run() {
  local name=$1 before=$SECONDS code=0
  shift
  # What hangs is not to take the time of the others.
  timeout "${LIMIT_S:-420}" "$@" >"$out/$name.log" 2>&1 || code=$?
  echo "$name: exit $code after $((SECONDS - before)) s, $((SECONDS - started)) s in all"
  [ $code -eq 0 ] || { tail -n 3 "$out/$name.log"; failed=1; }
  return $code
}

# The model is made for the first part that needs it; its tokenizer is written last.
model() {
  [ -f "$work/$family/tokenizer.json" ] ||
    run build "$python" "$root/benchmarks/gpu_train.py" build "$out" --family "$family" --model "$work/$family" \
      --tokenizer "$tokenizer" $small
}

# train NAME ROLE OPTIONS...
train() {
  local name=$1 role=$2
  shift 2
  [ ! -f "$out/$name.json" ] || { echo "$name: measured before"; return; }
  model && run "$name" "$python" "$root/benchmarks/gpu_train.py" "$role" "$out" --name "$name" --family "$family" \
    --model "$work/$family" --articles "$articles" --work "$work/$name" $small "$@"
}

# titlegen NAME ROWS OPTIONS...: logs often, compiles. Few rows and none of what needs a GPU where the model is small.
titlegen() {
  local name=$1 rows=$2 options=(--set compile=true)
  shift 2
  if [ -n "$small" ]; then
    rows=12 options=(--set compile=false --set 'backend="peft"' --set load_in_4bit=false --set max_length=160
      --set auto_batch=false --set per_device_train_batch_size=2 --set gradient_accumulation_steps=1)
  elif ! "$python" -c "import unsloth" 2>"$work/unsloth.log"; then
    options+=(--set 'backend="peft"')
  fi
  train "$name" titlegen --set logging_steps=$([ -n "$small" ] && echo 1 || echo 5) --set num_train_epochs=1 \
    --rows "$rows" "${options[@]}" "$@"
}

# variant NAME_TURN
variant() {
  case $1 in
    plain_*) train "$1" plain --steps "${small_steps:-10}" ;;
    unsloth_eager_*) train "$1" unsloth --steps 4 --compiled 0 ;;
    unsloth_*) train "$1" unsloth --steps 6 ;;
    titlegen_pts_fp8_*) titlegen "$1" 960 --shape pts --set fp8=true ;;
    titlegen_pts_*) titlegen "$1" 960 --shape pts ;;
    titlegen_fp8_*) titlegen "$1" 640 --shape fixed --set fp8=true ;;
    titlegen_*) titlegen "$1" 640 --shape fixed ;;
  esac
}

# There and back, around the one that takes longest: what the machine does meanwhile meets all of them.
measure_speed() {
  local name
  for name in titlegen_pts_1 titlegen_1 plain_1 unsloth_1 plain_2 titlegen_2 titlegen_pts_2; do variant "$name"; done
}

# With an empty compile cache, and Unsloth as it is without compiling.
measure_first() {
  [ -f "$out/titlegen_pts_cold.json" ] || rm -rf "$work/cold"
  TORCHINDUCTOR_CACHE_DIR=$work/cold TRITON_CACHE_DIR=$work/cold titlegen titlegen_pts_cold 320 --shape pts
  variant unsloth_eager_1
}

measure_fp8() {
  local name
  for name in titlegen_pts_1 titlegen_pts_fp8_1 titlegen_1 titlegen_fp8_1 titlegen_fp8_2 titlegen_2 titlegen_pts_fp8_2 \
    titlegen_pts_2; do variant "$name"; done
}

measure_small() {
  titlegen low_memory 320 --shape pts --set low_memory=true --set logging_steps=2
  titlegen low_memory_32_rows 640 --shape pts --set low_memory=true --set per_device_train_batch_size=32 \
    --set gradient_accumulation_steps=1 --set logging_steps=2
  local turn
  for turn in 1 2; do
    titlegen recomputed_8x2048_$turn 320 --shape fixed --set low_memory=true --set per_device_train_batch_size=8 \
      --set gradient_accumulation_steps=4 --set logging_steps=2
  done
  titlegen long_1400x3 1400 --shape pts --set num_train_epochs=3
  titlegen limit_24 640 --shape pts --limit-gib 24
  titlegen limit_13 320 --shape fixed --limit-gib 13 --set logging_steps=2
}

# curves NAME OPTIONS...
curves() {
  local name=$1
  shift
  [ ! -f "$out/$name.json" ] || { echo "$name: measured before"; return; }
  model && run "$name" "$python" "$root/benchmarks/gpu_curves.py" "$out" --name "$name" --family "$family" \
    --model "$work/$family" --articles "$articles" --steps "${small_steps:-50}" $small "$@"
}

measure_curves() { curves "curves_$suffix"; }

measure_curves_fp8() { curves "curves_fp8_$suffix" --fp8; }

# pipeline ROLE RESULT OPTIONS...: minutes, not seconds.
pipeline() {
  local role=$1 result=$2
  shift 2
  [ ! -f "$out/$result.json" ] || { echo "$result: measured before"; return; }
  LIMIT_S=${PIPELINE_LIMIT_S:-3600} run "$role" "$python" "$root/benchmarks/gpu_pipeline.py" "$role" "$out" \
    --articles "$articles" --work "$work/$role" "$@"
}

measure_resume() {
  [ "$family" = gemma3n ] || { echo "resume: for gemma3n alone"; return; }
  model && pipeline resume resume_e4b --model "$work/$family" --rows 200 ${small:+--rows 80 --set train.backend=peft
    train.no-load-in-4bit train.max-length=160 train.gradient-accumulation-steps=1 train.no-auto-batch
    train.num-train-epochs=0.7}
}

# Without a GPU: one of the trainings, of few rows.
measure_quality() {
  pipeline quality train_270m ${small:+--labels peft --rows 40 --set train.num-train-epochs=0.1
    train.per-device-train-batch-size=2 train.gradient-accumulation-steps=1 train.no-auto-batch}
}

measure_generate() {
  model && run generate "$python" "$root/benchmarks/gpu_generate.py" "$out" "$work/$family" --articles "$articles" \
    --name "generate_$suffix" ${small:+--titles 4 --batch 2}
}

measure_lookup() {
  [ ! -f "$out/lookup_$suffix.json" ] || { echo "lookup: measured before"; return; }
  run lookup "$python" "$root/benchmarks/gpu_lookup.py" "$out" --family "$family" --name "lookup_$suffix" $small
}

measure_desk() {
  [ ! -f "$out/desk_gpu.json" ] || { echo "desk: measured before"; return; }
  run desk "$python" "$root/benchmarks/gpu_desk.py" "$out" --models 270m "$family" $small
}

measure_attention() { run attention "$python" "$root/benchmarks/gpu_attention.py" "$out" $small; }

measure_export() {
  [ ! -f "$out/export_$suffix.json" ] || { echo "export: measured before"; return; }
  run export "$python" "$root/benchmarks/gpu_export.py" "$out" --tokenizer "$tokenizer" --articles "$articles" \
    --work "$work/export" --family "$family" $small
}

measure_latency() {
  local gguf=$work/export/gguf files=()
  for type in Q8_0 Q4_K_M; do
    run "quantize_$type" llama-quantize "$gguf/titlegen-BF16.gguf" "$gguf/titlegen-$type.gguf" "$type" "$(nproc)" &&
      files+=("$gguf/titlegen-$type.gguf")
  done
  [ ${#files[@]} -gt 0 ] && run latency "$python" "$root/benchmarks/gpu_latency.py" "$out" "$work/export/final-hf" \
    "${files[@]}" --articles "$articles" --name "latency_$suffix"
}

for part in "$@"; do
  [[ $part =~ ^(plain|unsloth|unsloth_eager|titlegen(_pts)?(_fp8)?)_[0-9]+$ ]] || declare -F "measure_$part" >/dev/null ||
    { echo "no part $part" >&2; exit 2; }
done
for part in "$@"; do
  if declare -F "measure_$part" >/dev/null; then "measure_$part"; else variant "$part"; fi
done
# What was measured in parts becomes result files.
if compgen -G "$out/titlegen_*.json" >/dev/null; then
  "$python" "$root/benchmarks/train_results.py" "$out" "$family" || failed=1
fi
exit $failed
