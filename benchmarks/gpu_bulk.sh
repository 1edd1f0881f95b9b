#!/usr/bin/env bash
# Bulk titling with random E4B weights on one card and on two, and the decoder called directly:
#
#     benchmarks/gpu_bulk.sh OUT TOKENIZER [MODEL]
#
# OUT is a folder for the result and the logs, TOKENIZER one with Gemma's tokenizer files, MODEL where the model is, or is
# made. About four minutes on two H100.
set -uo pipefail

[ $# -ge 2 ] || { echo "usage: $0 OUT TOKENIZER [MODEL]" >&2; exit 2; }
mkdir -p "$1"
out=$(realpath "$1") tokenizer=$(realpath "$2")
model=${3:-$out/work/e4b}
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" TQDM_DISABLE=1 HF_HUB_OFFLINE=1
cat "$root"/titlegen/corpus/*.jsonl >"$out/corpus.jsonl"
[ -f "$model/tokenizer.json" ] ||
  "$python" "$root/benchmarks/gpu_train.py" build "$out" --model "$model" --tokenizer "$tokenizer" || exit 1
echo "model after $SECONDS s"
"$python" "$root/benchmarks/gpu_bulk.py" "$out" "$model" --articles "$out/corpus.jsonl" --cards "${CARDS:-2}" \
  --blocks 5 2>"$out/bulk.log"
code=$?
echo "exit $code after $SECONDS s"
tail -n 5 "$out/bulk.log"
exit $code
