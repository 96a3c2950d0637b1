#!/usr/bin/env bash
# Every test: the default features, then the engine alone, which must not need libtorch.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test "$@"
ci/engine_alone.sh
