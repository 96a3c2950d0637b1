#!/usr/bin/env bash
# The queue, the lease and the team of threads under ThreadSanitizer: their own tests, real threads. Needs a nightly toolchain.
#
# std is not compiled with the sanitizer, so what it orders inside (Arc's last drop, a thread's result) is unseen: ci/tsan.supp
# names those functions.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=target/tsan RUSTFLAGS=-Zsanitizer=thread
export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/ci/tsan.supp ${TSAN_OPTIONS:-}"
cargo +nightly test --locked --manifest-path ci/alone/Cargo.toml --target "$host" --lib "$@"
