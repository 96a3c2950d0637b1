#!/usr/bin/env bash
# The fence and the queue under Miri, which checks what SAFETY comments promise. Needs a nightly toolchain with Miri.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo +nightly miri test --no-default-features --lib -- ffi::memory rollout::
