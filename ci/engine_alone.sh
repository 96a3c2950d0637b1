#!/usr/bin/env bash
# The embedded engine: built, tested and linked without libtorch.
set -euo pipefail
cd "$(dirname "$0")/.."
if cargo tree --no-default-features --edges normal,build | grep -E '(tch|torch-sys) v'; then
  echo "the engine alone must not depend on libtorch" >&2
  exit 1
fi
cargo test --no-default-features --lib --bins --test '*'
