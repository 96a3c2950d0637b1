#!/usr/bin/env bash
# Clippy on everything, in each feature set, warnings denied.
set -euo pipefail
cd "$(dirname "$0")/.."
for features in "" "--features tensorrt-llm,fault-injection" "--no-default-features" "--no-default-features --features tensorrt-llm"; do
  # shellcheck disable=SC2086 # one word or several, on purpose
  cargo clippy --all-targets $features -- -D warnings
done
