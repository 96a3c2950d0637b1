#!/usr/bin/env bash
# Clippy on everything, in both feature sets, warnings denied.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo clippy --all-targets -- -D warnings
cargo clippy --all-targets --no-default-features -- -D warnings
