#!/usr/bin/env bash
# Makes the Python environment of the peers: tests/peers/venv.sh DIR. Does nothing when it is there and complete.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
if cmp -s "$here/requirements.txt" "$1/requirements.done"; then exit 0; fi
command -v python3 > /dev/null || { echo "the peers need python3, which is not on the PATH" >&2; exit 1; }
echo "making the peers' Python environment in $1 (about 2 GB)"
python3 -m venv --clear "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
cp "$here/requirements.txt" "$1/requirements.done"
