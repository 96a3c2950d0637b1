#!/usr/bin/env bash
# The report and the live page in a real browser, at a desk's width and a phone's: a short run is made, a hostile completion is
# put among its samples, and the pages' DOM is checked. Needs Debian's package `chromium` (or CHROMIUM naming another).
#
#   ci/browser.sh [FOLDER]    leaves the screenshots in FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."

chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$chromium" ]; then
  echo "ci/browser.sh needs Chromium: install the package chromium, or name the program in CHROMIUM" >&2
  exit 1
fi
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
pictures=${1:-$work/pictures}
mkdir -p "$pictures"

# ---- a run ----

cargo build
rollforge=$PWD/target/debug/rollforge
(
  cd "$work"
  printf 'vocab_size = 280\nhidden_size = 32\nintermediate_size = 64\nnum_layers = 2\nnum_heads = 2\nmax_positions = 64\n' > spec.toml
  echo 0123456789 > corpus.txt
  "$rollforge" new-model spec.toml --text corpus.txt --output model > /dev/null
  for row in $(seq 0 99); do
    echo "{\"prompt\": \"$((row % 10))\", \"completion\": \"$((row % 7))\", \"answer\": \"$((row % 10))\"}"
  done > rows.jsonl
  cat > ppo.toml <<TOML
output_dir = "run"
seed = 1
threads = 2
model.path = "model"
data.train = "rows.jsonl"
log.samples = 4
reward = { kind = "position_match", column = "answer" }
sampling.max_new_tokens = 4
ppo.iterations = 6
ppo.prompts_per_iteration = 20
ppo.value_init = "policy"
optimizer.lr = 0.01
TOML
  "$rollforge" ppo --config ppo.toml --quiet > /dev/null
)
run=$work/run
test -s "$run/report.html" || { echo "the run wrote no report.html" >&2; exit 1; }
python3 - "$run" <<'PYTHON'
import json, pathlib, sys
hostile = "</script><script>document.documentElement.dataset.hacked='yes'</script><img src=x onerror=\"document.documentElement.dataset.hacked='yes'\">"
for path in sorted(pathlib.Path(sys.argv[1], "samples").glob("*.jsonl")):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["completion"] = hostile
    rows[1]["prompt"] = hostile
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
PYTHON
"$rollforge" report "$run" > /dev/null

# ---- the browser ----

browse() { # width, arguments...
  local width=$1
  shift
  # What it logs goes nowhere: on machines without a desktop it complains at length.
  "$chromium" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$(mktemp -d -p "$work")" \
    --window-size="$width,2400" "$@" 2> /dev/null
}

check() { # name, dom file, what must be in it...
  python3 - "$@" <<'PYTHON'
import html.parser, re, sys
name, path, *wanted = sys.argv[1:]
text = open(path, encoding="utf-8").read()
root = {}
class Root(html.parser.HTMLParser):
    def handle_starttag(self, tag, attributes):
        if tag == "html":
            root.update(attributes)
Root().feed(text)
def expect(good, said):
    if not good:
        sys.exit(f"{name}: {said}; <html> has {root}")
expect("data-error" not in root, "the script failed")
expect("data-ready" in root, "the page was not drawn")
expect("data-hacked" not in root, "a completion was executed")
expect(int(root.get("data-charts", 0)) >= 8, "there are too few charts")
expect(root.get("data-overflow") == "0", "the page is wider than its window")
# A drawn curve has two points at least.
expect(len(re.findall(r'class="line" d="M[0-9.,]+L', text)) >= 8, "the curves are not drawn")
expect('class="card pair"' in text, "there are no samples")
expect("&lt;/script&gt;&lt;script&gt;document" in text, "the hostile completion is not shown as text")
for one in wanted:
    expect(one in text, f"there is no {one!r}")
print(f"{name}: {root['data-charts']} charts, drawn at version {root['data-ready']}")
PYTHON
}

for width in 1280 390; do
  browse $width --virtual-time-budget=5000 --dump-dom "file://$run/report.html" > "$work/report.html"
  check "report at $width" "$work/report.html" '>finished<' ' of 6<' 'KL from the reference' 'config.resolved.toml'
  browse $width --virtual-time-budget=5000 --screenshot="$pictures/report_$width.png" "file://$run/report.html"
done

# Steps are written while the live page is open: they must appear in it.
"$rollforge" watch "$run" --address 127.0.0.1:0 > "$work/url" &
until [ -s "$work/url" ]; do kill -0 $!; sleep 0.1; done
url=$(head -1 "$work/url")
for width in 1280 390; do
  step=$(wc -l < "$run/metrics.jsonl")
  (
    # Only when the page is there: it is asked for its data once at first.
    for _ in 1 2 3 4 5 6 7 8; do
      sleep 1
      step=$((step + 1))
      sed -n '$p' "$run/metrics.jsonl" | sed "s/\"step\":[0-9]*/\"step\":$step/" >> "$run/metrics.jsonl"
    done
  ) &
  browse $width --timeout=9000 --dump-dom "$url" > "$work/live.html"
  wait $!
  check "live page at $width" "$work/live.html" '>live<' 'KL from the reference'
  browse $width --timeout=4000 --screenshot="$pictures/live_$width.png" "$url"
done
echo "the pages are well"
