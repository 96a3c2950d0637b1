"""A headless Chromium that is told what to do over a pipe (Chrome DevTools Protocol). Needs nothing but Python."""

import base64
import contextlib
import json
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time

DEADLINE = 60.0
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]


class Browser:
    """One browser with one page. Complaints of its console are errors of the page."""

    def __init__(self):
        program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if program is None:
            raise SystemExit("no Chromium: install the package chromium, or name the program in CHROMIUM")
        self.profile = tempfile.mkdtemp()
        (theirs_in, self.to), (self.back, theirs_out) = os.pipe(), os.pipe()
        command = shlex.join([program, *QUIET, f"--user-data-dir={self.profile}", "--remote-debugging-pipe", "about:blank"])
        # It reads from 3 and writes to 4.
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {command} 3<&{theirs_in} 4>&{theirs_out}"], pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.count, self.read, self.complaints, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **parameters):
        """Asks for something and returns the answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + DEADLINE
        while True:
            answer = self.message(until, method)
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def message(self, until, waiting):
        while b"\0" not in self.read:
            if not select.select([self.back], [], [], max(0.0, until - time.monotonic()))[0]:
                raise SystemExit(f"Chromium did not answer {waiting} within {DEADLINE:.0f} s")
            part = os.read(self.back, 1 << 20)
            if not part:
                raise SystemExit(f"Chromium ended while it was asked for {waiting}")
            self.read += part
        line, self.read = self.read.split(b"\0", 1)
        message = json.loads(line)
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(message["params"]["exceptionDetails"].get("exception", {}).get("description")))
        entry = message.get("params", {}).get("entry", {})
        if message.get("method") == "Log.entryAdded" and entry.get("level") == "error":
            self.complaints.append(entry["text"])
        return message

    def open(self, url, width, dark=False):
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        self.call("Page.navigate", url=url)
        self.wait("document.documentElement?.dataset.ready", f"{url} to be drawn")

    def value(self, script):
        """Returns what an expression comes to in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise SystemExit(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, script, what):
        """Waits until an expression is true in the page."""
        until = time.monotonic() + DEADLINE
        while not self.value(script):
            if time.monotonic() > until:
                raise SystemExit(f"waited {DEADLINE:.0f} s for {what}; the page complains: {self.complaints}")
            time.sleep(0.05)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def picture(self, path):
        """Takes a picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12000), "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))


@contextlib.contextmanager
def browser():
    started = Browser()
    try:
        yield started
    finally:
        started.close()
