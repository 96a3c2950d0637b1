#!/usr/bin/env bash
# Runs one benchmark of one peer: run.sh PEER WHAT ARGS..., see README.md. The last line of standard output is JSON.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$here/../../target/peers/venv/bin/python
[ -x "$python" ] || { echo "no target/peers/venv, make it with benches/peers/setup.sh" >&2; exit 2; }
# How threads wait is left to the peer: what suits Rollforge's own libtorch is not imposed on it.
unset OMP_WAIT_POLICY OMP_NUM_THREADS GOMP_SPINCOUNT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error PYTHONWARNINGS=ignore
# -P: a module of ours that is called torch or trl must not hide the library of that name.
PYTHONPATH=$here/.. PYTHONDONTWRITEBYTECODE=1 exec "$python" -P -m peers "$@"
