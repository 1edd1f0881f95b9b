#!/usr/bin/env bash
# Preference training of Gemma 3 270M on one card: benchmarks/gpu_prefer.sh OUT DATA BASE PART, of trial, seeds, speed
#
# DATA holds train, val, more (further validation articles) and test as JSONL, and words.json (article id to a word).
# trial: an SFT adapter, and what every way of preferring makes of it on validation.
set -uo pipefail

[ $# -ge 4 ] || { echo "usage: $0 OUT DATA BASE trial|seeds|speed" >&2; exit 2; }
mkdir -p "$1"
out=$(realpath "$1") data=$(realpath "$2") base=$(realpath "$3") part=$4
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" TQDM_DISABLE=1 TOKENIZERS_PARALLELISM=false
started=$SECONDS

# role LOG SHARE ROLE OPTIONS...: one process with a share of the card's memory.
role() {
  local log=$1 share=$2 name=$3 code=0 before=$SECONDS
  shift 3
  PYTORCH_ALLOC_CONF=per_process_memory_fraction:$share OMP_NUM_THREADS=4 \
    "$python" "$root/benchmarks/gpu_prefer.py" "$name" "$out" --data "$data" --base "$base" "$@" \
    >"$out/$log.log" 2>&1 || code=$?
  echo "$log: exit $code after $((SECONDS - before)) s, $((SECONDS - started)) s in all"
  [ $code -eq 0 ] || tail -n 5 "$out/$log.log"
}

trial() {
  role sft 0.45 sft --name sft --set compile=false
  role draw 0.45 draw --name sft --candidates 24 --batch-size 40
  cat >"$out/variants.txt" <<'END'
lr5e-5 learning_rate=5e-5
lr1e-4 learning_rate=1e-4
lr2e-4 learning_rate=2e-4
reference0 learning_rate=1e-4 reference_weight=0
reference1 learning_rate=1e-4 reference_weight=1
pairs1 learning_rate=1e-4 pairs=1
simpo learning_rate=1e-4 objective=simpo beta=2 margin=1
sft learning_rate=1e-4 objective=sft
epochs3 learning_rate=1e-4 num_train_epochs=3
beta03 learning_rate=1e-4 beta=0.3
cpo learning_rate=5e-5 objective=cpo
sftweight learning_rate=2e-4 sft_weight=0.3
lr4e-4 learning_rate=4e-4
pairs8 learning_rate=2e-4 pairs=8
beta003 learning_rate=1e-4 beta=0.03
candidates8 learning_rate=1e-4 candidates=8
distance2 learning_rate=1e-4 distance=0.2
sftweight1 learning_rate=2e-4 sft_weight=1
END
  for number in 0 1 2; do
    role "trial-$number" 0.2 trial --name sft --variants "$out/variants.txt" --part "$number/3" --set compile=false &
  done
  wait
}

# one NAME SEED SHARE CANDIDATES VARIANTS: an SFT adapter, candidates, the variants, and for the one that validation
# chooses the test split, looked at once, and titles with a length and with words for 100 articles of it.
one() {
  local name=$1
  role "sft-$name" "$3" sft --name "$name" --set compile=false seed="$2" &&
    role "draw-$name" "$3" draw --name "$name" --candidates "$4" --batch-size 20 &&
    role "trial-$name" "$3" trial --name "$name" --variants "$5" --set compile=false &&
    role "final-$name" "$3" final --name "$name" --controlled 100 --adapter "$(chosen "$name")"
}

# chosen NAME: the folder of the variant with the best greedy titles for the validation articles.
chosen() {
  "$python" - "$out" "$1" <<'END'
import json, sys
out, name = sys.argv[1:]
found = json.load(open(f"{out}/trial-{name}.json"))["variants"]
found.pop("sft")
print(f"{out}/{name}/preferred-" + max(found, key=lambda key: found[key]["validation"]["greedy"]["rougeL"]))
END
}

# seeds: twice, each with an SFT model of its own, and with the one variant that the trials chose.
seeds() {
  printf 'a learning_rate=1e-4 beta=0.3 sft_weight=1\n' >"$out/one.txt"
  one s3407 3407 0.45 16 "$out/one.txt" &
  one s42 42 0.45 16 "$out/one.txt" &
  wait
}

# speed: E4B's size, random weights, beside TRL's own trainer.
speed() {
  "$python" "$root/benchmarks/gpu_prefer_speed.py" "$out" --tokenizer "$base" --model "$out/e4b" --limit-gib 24 \
    >"$out/speed.log" 2>&1 || tail -n 8 "$out/speed.log"
}

declare -F "$part" >/dev/null || { echo "no part $part" >&2; exit 2; }
"$part"
