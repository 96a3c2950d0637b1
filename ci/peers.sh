#!/usr/bin/env bash
# What rollforge writes, read by `transformers`. Makes the pinned Python environment .venv-peers once (1.7 GB).
set -euo pipefail
cd "$(dirname "$0")/.."
tests/peers/venv.sh .venv-peers
ROLLFORGE_PEERS_PYTHON="$PWD/.venv-peers/bin/python" cargo test --test peers -- --nocapture
