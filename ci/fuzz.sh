#!/usr/bin/env bash
# Every fuzz target for FUZZ_SECONDS (20) each, from the corpora in fuzz/corpus; one line for each. Needs
# `cargo install cargo-fuzz`. Arguments name the targets to run; without any, all of them.
#
# Coverage and AddressSanitizer are options that rustc keeps for nightly. RUSTC_BOOTSTRAP=1 lets the toolchain at hand take
# them, so that what is fuzzed is what the tests test; a nightly toolchain does the same with or without it.
#
# What the fuzzer adds stays in target/fuzz/corpus, a crash in target/fuzz/crashes; the corpora in the repository are only read.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fuzz --version >/dev/null 2>&1 || { echo "fuzz: needs cargo-fuzz: cargo install cargo-fuzz" >&2; exit 1; }
seconds=${FUZZ_SECONDS:-20}
targets=${*:-$(cd fuzz/targets && ls | sed 's/\.rs$//')}
work=$PWD/target/fuzz
build() { (cd fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir . --target-dir "$work/build" "$@"); }
# shellcheck disable=SC2086 # a list of names
if [ $# -gt 0 ]; then for target in $targets; do build "$target"; done; else build; fi
# Inputs are written to files; on a disk that would be most of the time.
[ -d /dev/shm ] && export TMPDIR=/dev/shm

for target in $targets; do
  mkdir -p "$work/corpus/$target" "$work/crashes"
  log=$work/$target.log
  words=fuzz/dictionaries/$target.dict
  if ! "$work"/build/*/release/"$target" "$work/corpus/$target" "fuzz/corpus/$target" \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="$work/crashes/$target-" ${FUZZ_SEED:+-seed=$FUZZ_SEED} $([ -f "$words" ] && echo "-dict=$words") \
    >"$log" 2>&1; then
    grep -E 'panicked|ERROR|Test unit written' -A2 "$log" | head -20 >&2
    echo "fuzz: $target failed; the whole log is in $log" >&2
    exit 1
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
  edges=$(grep -oE 'cov: [0-9]+' "$log" | tail -1 | cut -d' ' -f2)
  echo "fuzz: $target: $runs inputs in $seconds s, $edges edges, $peak MiB at most"
done
