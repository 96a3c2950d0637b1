#!/usr/bin/env bash
# The report and the live page in a real browser, at a desk's width and a phone's: a short run is made, hostile completions are
# put among its samples, and browser_checks.py looks at what is drawn. Needs the package `chromium` (or CHROMIUM naming another).
#
#   ci/browser.sh [FOLDER]    leaves the screenshots in FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo build
rollforge=$PWD/target/debug/rollforge
(
  cd "$work"
  printf 'vocab_size = 280\nhidden_size = 32\nintermediate_size = 64\nnum_layers = 2\nnum_heads = 2\nmax_positions = 64\n' > spec.toml
  echo 0123456789 > corpus.txt
  "$rollforge" new-model spec.toml --text corpus.txt --output model > /dev/null
  for row in $(seq 0 99); do
    echo "{\"prompt\": \"$((row % 10))\", \"completion\": \"$((row % 7))\", \"answer\": \"$((row % 10))\"}"
  done > rows.jsonl
  cat > ppo.toml <<TOML
output_dir = "run"
seed = 1
threads = 2
model.path = "model"
data.train = "rows.jsonl"
log.samples = 4
reward = { kind = "position_match", column = "answer" }
sampling.max_new_tokens = 4
ppo.iterations = 6
ppo.prompts_per_iteration = 20
ppo.value_init = "policy"
optimizer.lr = 0.01
TOML
  "$rollforge" ppo --config ppo.toml --quiet > /dev/null
)
test -s "$work/run/report.html" || { echo "the run wrote no report.html" >&2; exit 1; }
PYTHONDONTWRITEBYTECODE=1 python3 ci/browser_checks.py "$rollforge" "$work/run" "${1:-$work/pictures}"
