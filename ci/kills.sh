#!/usr/bin/env bash
# A run of PPO, synchronous and asynchronous, killed fifty times at random moments (SIGKILL): it ends in the same bits as one
# that was left alone. `make test` does it five times.
set -euo pipefail
cd "$(dirname "$0")/.."
ROLLFORGE_KILLS="${ROLLFORGE_KILLS:-50}" cargo test --test runs a_run_that_is_killed_at_any_moment "$@"
