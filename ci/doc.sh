#!/usr/bin/env bash
# The API documentation, warnings denied.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features tensorrt-llm
