#!/usr/bin/env bash
# Makes a Python environment of peers: tests/peers/venv.sh DIR [REQUIREMENTS]. Does nothing when it is there and complete.
set -euo pipefail
[ $# -eq 1 ] || [ $# -eq 2 ] || { echo "usage: $0 DIR [REQUIREMENTS]" >&2; exit 2; }
requirements="${2:-$(cd "$(dirname "$0")" && pwd)/requirements.txt}"
if cmp -s "$requirements" "$1/requirements.done"; then exit 0; fi
command -v python3 > /dev/null || { echo "the peers need python3, which is not on the PATH" >&2; exit 1; }
echo "making a Python environment of $(basename "$requirements") in $1"
python3 -m venv --clear "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
cp "$requirements" "$1/requirements.done"
