#!/usr/bin/env bash
# Makes what the peers run on, in target/peers: setup.sh [hf|torch|trl|llamacpp]..., all of them by default.
# Does nothing where it is there and complete.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=$PWD/target/peers

venv() {
  tests/peers/venv.sh "$peers/venv" benches/peers/requirements.txt
  echo "target/peers/venv is complete"
}

# llama.cpp's own benchmark, for this machine's instruction set, and its converter. A build that was cut off goes on.
llamacpp() {
  local home=$peers/llama.cpp pin=benches/peers/llamacpp.txt
  cmp -s "$pin" "$home/source.done" || fetch_llamacpp "$home" "$pin"
  if ! cmp -s "$pin" "$home/requirements.done"; then
    echo "building llama-batched-bench in target/peers/llama.cpp (minutes)"
    build_llamacpp "$home" > "$home/build.log" 2>&1 || { tail -n 20 "$home/build.log" >&2; exit 1; }
    cp "$pin" "$home/requirements.done"
  fi
  echo "target/peers/llama.cpp is complete"
}

fetch_llamacpp() {
  rm -rf "$1"
  mkdir -p "$1/source"
  echo "fetching llama.cpp (77 MB)"
  "$peers/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --no-binary llama-cpp-python -d "$1" -r "$2"
  tar -xzf "$1"/*.tar.gz -C "$1/source" --strip-components=3 --wildcards '*/vendor/llama.cpp'
  rm "$1"/*.tar.gz
  cp "$2" "$1/source.done"
}

build_llamacpp() {
  "$peers/venv/bin/cmake" -S "$1/source" -B "$1/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF &&
    "$peers/venv/bin/cmake" --build "$1/build" --target llama-batched-bench --parallel "$(nproc)"
}

[ $# -gt 0 ] || set -- hf torch trl llamacpp
for peer in "$@"; do
  case $peer in
    hf | torch | trl | llamacpp) ;;
    *) echo "no peer is called '$peer', choose from hf, torch, trl, llamacpp" >&2; exit 2 ;;
  esac
done
venv
case " $* " in *" llamacpp "*) llamacpp ;; esac
