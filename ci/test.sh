#!/usr/bin/env bash
# Every test: with libtorch and the TensorRT-LLM backend, then the engine alone, which must not need libtorch.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --features tensorrt-llm "$@"
ci/tensorrt_llm_headers.sh
ci/engine_alone.sh
