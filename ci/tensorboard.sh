#!/usr/bin/env bash
# Event files of whole runs, read by TensorBoard. Makes the pinned Python environment .venv-tensorboard once (0.2 GB).
set -euo pipefail
cd "$(dirname "$0")/.."
tests/peers/venv.sh .venv-tensorboard tests/peers/tensorboard.txt
ROLLFORGE_TENSORBOARD_PYTHON="$PWD/.venv-tensorboard/bin/python" cargo test --test runs tensorboard -- --nocapture
