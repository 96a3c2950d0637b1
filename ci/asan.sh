#!/usr/bin/env bash
# The border to TensorRT-LLM under AddressSanitizer, its leak check, and UBSan: every test of tests/ffi_boundary, and what only
# C can say (tests/boundary).
#
# The C++ of the bridge, the shim, the stand-in and the double is compiled with the sanitizers (build.rs), and the programs
# are linked to their runtime, which then watches every allocation of the process, Rust's too. Needs GCC's libasan and
# libubsan, which must be loaded before anything else.
set -euo pipefail
cd "$(dirname "$0")/.."
export ROLLFORGE_SANITIZE=address,undefined
export CARGO_TARGET_DIR=target/asan
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=env LD_PRELOAD=$(g++ -print-file-name=libasan.so)"
cargo test --no-default-features --features tensorrt-llm --test ffi_boundary "$@"

out=$(ls -td "$CARGO_TARGET_DIR"/debug/build/rollforge-*/out/librollforge_double.a | head -1 | xargs dirname)
g++ -std=c++17 -Wall -Wextra -Werror -g -fsanitize="$ROLLFORGE_SANITIZE" -fno-sanitize-recover=all \
  -Iffi/tensorrt_llm tests/boundary/nulls.cc "$out"/librollforge_{shim,double}.a -ldl -pthread -o "$CARGO_TARGET_DIR/nulls"
"$CARGO_TARGET_DIR/nulls" && echo "tests/boundary/nulls.cc: passed"
