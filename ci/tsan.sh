#!/usr/bin/env bash
# The queue, the lease and the team of threads under ThreadSanitizer: the tests of ci/alone, which run on real threads.
#
# The sanitizer is an option that rustc keeps for nightly; RUSTC_BOOTSTRAP=1 lets the toolchain at hand take it. The standard
# library comes compiled and is not instrumented, hence the second flag: what synchronises inside it is not seen.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target/tsan
export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
export TSAN_OPTIONS="suppressions=$PWD/ci/tsan.supp ${TSAN_OPTIONS:-}"
cargo test --locked --manifest-path ci/alone/Cargo.toml --target "$target" --lib "$@" -- --test-threads=1
