#!/usr/bin/env bash
# A small asynchronous PPO run for SOAK_MINUTES (60) minutes: memory, threads and open files must stay flat (ci/soak.py).
# SOAK_BINARY names a rollforge to take instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${SOAK_BINARY:-}" ]; then
  cargo build --release --bin rollforge
  SOAK_BINARY=${CARGO_TARGET_DIR:-target}/release/rollforge
fi
world=target/soak
rm -rf "$world"
mkdir -p "$world"
python3 examples/make_digits.py "$world/digits"
"$SOAK_BINARY" new-model examples/digits-model.toml --text "$world/digits/digits.txt" --output "$world/model"
# Far more iterations than there is time for: the run is stopped from outside.
cat >"$world/soak.toml" <<'TOML'
output_dir = "run"
seed = 1
model.path = "model"
data.train = "digits/digits.jsonl"
data.eval = "digits/digits_eval.jsonl"
data.max_tokens = 8
reward = { kind = "position_match", column = "answer" }
sampling = { max_new_tokens = 5, ignore_eos = true }
queue = { mode = "async", max_staleness = 2, order = "arrival" }
engine.refit_in_flight = "recompute"
checkpoint = { every = 50, keep = 2 }
optimizer.lr = 1e-4

[ppo]
iterations = 1000000
prompts_per_iteration = 64
epochs = 2
mini_batches = 2
value_init = "policy"
TOML
exec python3 ci/soak.py "${SOAK_MINUTES:-60}" "$world/run" "$SOAK_BINARY" ppo --config "$world/soak.toml" --quiet
