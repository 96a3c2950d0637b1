#!/usr/bin/env bash
# A picture of a run's report, made with headless Chromium: ci/screenshot.sh RUN PNG [WIDTH [HEIGHT]]
set -euo pipefail
run=$(realpath "$1")
picture=$(realpath "$2")
chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$chromium" ]; then
  echo "ci/screenshot.sh needs Chromium: install the package chromium, or name the program in CHROMIUM" >&2
  exit 1
fi
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
cd "$(dirname "$0")/.."
cargo run --quiet -- report "$run" --output "$profile/report.html" > /dev/null
"$chromium" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$profile/user" \
  --window-size="${3:-1280},${4:-1500}" --virtual-time-budget=5000 --screenshot="$picture" "file://$profile/report.html" 2> /dev/null
echo "$picture"
