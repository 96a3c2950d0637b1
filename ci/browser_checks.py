"""What ci/browser.sh looks at: the report and the live page of a run, at a desk's width and a phone's.

    browser_checks.py ROLLFORGE RUN PICTURES
"""

import json
import pathlib
import subprocess
import sys

from browser import browser

HOSTILE = "</script><script>document.documentElement.dataset.hacked='yes'</script>" \
    "<img src=x onerror=\"document.documentElement.dataset.hacked='yes'\">"
WIDTHS = (1280, 390)
TEXT = "document.body.innerText"


def plant(run):
    """Puts a hostile prompt and completions into a run's samples."""
    for path in (run / "samples").glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[0]["completion"] = rows[1]["prompt"] = HOSTILE
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def expect(good, said):
    if not good:
        sys.exit(f"browser: {said}")


def check_drawn(page, name):
    root = page.value("({...document.documentElement.dataset})")
    expect(not page.complaints and "error" not in root, f"{name}: the page complains: {page.complaints} {root}")
    expect("hacked" not in root, f"{name}: a completion was executed")
    expect(page.value(f"{TEXT}.includes({json.dumps(HOSTILE)})"), f"{name}: the hostile completion is not shown as text")
    expect(int(root["charts"]) >= 8, f"{name}: there are only {root['charts']} charts")
    # A drawn curve has two points at least.
    drawn = page.value("[...document.querySelectorAll('path.line')].filter((path) => path.getAttribute('d').includes('L')).length")
    expect(drawn >= 8, f"{name}: only {drawn} curves are drawn")
    wider = page.value("document.documentElement.scrollWidth - innerWidth")
    expect(wider <= 0, f"{name}: the page is {wider} pixels wider than its window")
    print(f"{name}: {root['charts']} charts, {drawn} curves")


def check_hands(page, steps):
    """Keyboard, smoothing, search: what readers do."""
    page.value("document.querySelector('#curves .chart svg').focus()")
    page.press("ArrowLeft")
    shown = page.value("[...document.querySelectorAll('#curves .at')].map((at) => at.textContent)")
    expect(set(shown) == {f"at {steps - 1}"}, f"an arrow key shows {shown}")
    page.press("Escape")
    page.value("const range = document.getElementById('smoothing'); range.value = 0.6; range.dispatchEvent(new Event('input'))")
    expect(page.value("document.querySelectorAll('path.raw').length") >= 8, "smoothing draws nothing")
    page.value("const find = document.getElementById('find'); find.value = 'kl coef'; find.dispatchEvent(new Event('input'))")
    found = page.value("[...document.querySelectorAll('#metrics .chart h3')].map((title) => title.textContent)")
    expect(found == ["objective/kl_coef"], f"the search for a metric finds {found}")
    unnamed = page.value("[...document.querySelectorAll('svg[role=img]')].filter((drawing) => drawing.isConnected && !drawing.getAttribute('aria-label')).length")
    expect(unnamed == 0, f"{unnamed} drawings have no name")


def check_report(page, run, pictures):
    steps = len((run / "metrics.jsonl").read_text().splitlines())
    for width in WIDTHS:
        for dark in (False, True):
            name = f"report_{width}{'_dark' if dark else ''}"
            page.open(f"file://{run}/report.html", width, dark)
            check_drawn(page, name)
            page.picture(pictures / f"{name}.png")
        expect(page.value(f"{TEXT}.includes('finished')"), "the report does not say that the run is finished")
        check_hands(page, steps)


def check_live(page, rollforge, run, pictures):
    server = subprocess.Popen([rollforge, "watch", run, "--address", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        for width in WIDTHS:
            page.open(url, width)
            check_drawn(page, f"live_{width}")
            append_step(page, run)
            page.picture(pictures / f"live_{width}.png")
        expect(not page.complaints, f"the live page complains: {page.complaints}")
    finally:
        server.kill()
        server.wait()
    page.wait("/gone/.test(document.getElementById('connection').textContent) || document.getElementById('connection').textContent === ''", "the page to notice that its server is gone")


def append_step(page, run):
    """Writes what a run writes, and waits until the page shows it without being asked to."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[-1])
    row["step"] += 1
    drawn = page.value("document.querySelector('#curves path.line').getAttribute('d').split('L').length")
    append(run / "metrics.jsonl", row)
    page.wait(f"document.querySelector('#tiles .value').textContent.startsWith('{row['step']}')", f"step {row['step']}")
    page.wait(f"document.querySelector('#curves path.line').getAttribute('d').split('L').length === {drawn + 1}", "a longer curve")
    text = f"a warning of step {row['step']}"
    append(run / "journal.jsonl", {"time": 1.0, "step": row["step"], "kind": "warning", "text": text})
    page.wait(f"document.getElementById('alerts').textContent.includes('{text}')", "a warning")
    sample = {"prompt": HOSTILE, "completion": f"{HOSTILE} {row['step']}", "score": 1.0}
    append(run / f"samples/iteration_{row['step']}.jsonl", sample)
    page.wait(f"document.getElementById('after').value === '{row['step']}' && {TEXT}.includes({json.dumps(sample['completion'])})", "a sample")
    expect("hacked" not in page.value("({...document.documentElement.dataset})"), "a completion was executed live")


def append(path, row):
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def main():
    rollforge, run, pictures = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3]).resolve()
    pictures.mkdir(parents=True, exist_ok=True)
    plant(run)
    subprocess.run([rollforge, "report", run], check=True, stdout=subprocess.DEVNULL)
    with browser() as page:
        check_report(page, run, pictures)
        check_live(page, rollforge, run, pictures)
    print("the pages are well")


main()
