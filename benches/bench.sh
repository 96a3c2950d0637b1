#!/usr/bin/env bash
# Measures the whole set, into benches/results: for each a report (.json) and a picture (.svg), and at the end all tables.
#
#   BENCH_BINARY   the program (target/release/rollforge)
#   BENCH_RESULTS  the folder (benches/results)
#   BENCH_THREADS  threads, each on a core (2)
#   BENCH_ONLY     names that this pattern matches (all)
#   BENCH_PEERS    0: without peers. They take most of the time, which is hours for the whole set at 135M
set -euo pipefail
cd "$(dirname "$0")/.."
rollforge=${BENCH_BINARY:-target/release/rollforge}
results=${BENCH_RESULTS:-benches/results}
threads=${BENCH_THREADS:-2}
only=${BENCH_ONLY:-.}
mkdir -p "$results"

peers=()
if [ "${BENCH_PEERS:-1}" != 0 ]; then
  if [ -x target/peers/venv/bin/python ]; then
    peers=(engine:hf engine:llamacpp train:torch ppo:trl)
  else
    echo "without peers: benches/peers/setup.sh makes them" >&2
  fi
fi

# measure NAME BENCH ARGUMENTS...
measure() {
  local name=$1 bench=$2 arguments=("${@:3}") pair
  [[ $name =~ $only ]] || return 0
  for pair in "${peers[@]}"; do
    [ "${pair%%:*}" != "$bench" ] || arguments+=(--peer "${pair##*:}")
  done
  "$rollforge" bench "$bench" "${arguments[@]}" --json "$results/$name.json" --plot "$results/$name.svg"
}

shared=(--threads "$threads")
long=(--prompt 64 --new 128 --prefill 64,512,2048)
measure engine_135M_bf16 engine --shape 135M --dtype bf16 "${long[@]}" "${shared[@]}"
measure engine_135M_f32 engine --shape 135M --dtype f32 "${long[@]}" "${shared[@]}"
measure engine_5M_f32 engine --shape 5M --dtype f32 "${long[@]}" "${shared[@]}"
measure engine_qwen2_bf16 engine --shape qwen2-0.5B --dtype bf16 --batch 1,8,32 "${long[@]}" --repeats 3 "${shared[@]}"
measure train_5M_bf16 train --shape 5M --dtype bf16 "${shared[@]}"
measure train_5M_f32 train --shape 5M --dtype f32 "${shared[@]}"
measure train_135M_bf16 train --shape 135M --dtype bf16 --repeats 3 "${shared[@]}"
measure train_135M_f32 train --shape 135M --dtype f32 --repeats 3 "${shared[@]}"
measure refit_135M refit --shape 135M "${shared[@]}"
measure queue queue
for shape in 5M 135M; do
  for epochs in 1 4; do
    measure "ppo_${shape}_bf16_e$epochs" ppo --shape "$shape" --dtype bf16 --epochs "$epochs" --repeats 3 "${shared[@]}"
  done
  measure "ppo_${shape}_f32_e1" ppo --shape "$shape" --dtype f32 --repeats 3 "${shared[@]}"
done
"$rollforge" bench table "$results"
