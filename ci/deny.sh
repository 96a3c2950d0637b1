#!/usr/bin/env bash
# Licences, bans and sources of the dependencies. Needs `cargo install cargo-deny`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo deny check licenses bans sources
