#!/usr/bin/env bash
# The queue's protocol under loom (rollout/queue/models.rs): every interleaving with at most LOOM_MAX_PREEMPTIONS (3) switches
# away from a thread that could go on, and every value that a load may see.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=target/loom LOOM_MAX_PREEMPTIONS=${LOOM_MAX_PREEMPTIONS:-3}
cargo test --locked --manifest-path ci/alone/Cargo.toml --features loom --lib queue::models "$@"
