#!/usr/bin/env bash
# Every test: with libtorch, the TensorRT-LLM backend and faults on demand, then the engine alone, which must not need libtorch.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --features tensorrt-llm,fault-injection "$@"
ci/tensorrt_llm_headers.sh
ci/engine_alone.sh
