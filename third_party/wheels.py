"""Downloads pinned wheels with pip and lays out the wanted files of them in one folder."""

import glob
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_25_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
             "manylinux2010_x86_64"]


class Fetch:
    """One folder of third_party. `place(wheel, entry)` says where an entry of a wheel goes, or None; `finish(folder)` adds
    what no wheel holds; `instead` is what to do on a machine that the pins are not for."""

    def __init__(self, name, version, megabytes, place, instead, finish=lambda folder: None):
        self.name, self.version, self.megabytes = name, version, megabytes
        self.place, self.instead, self.finish = place, instead, finish
        self.requirements = os.path.join(HERE, f"{name}.requirements")
        self.downloads = os.path.join(HERE, "downloads", name)

    def main(self, script):
        """Fills the folder that the command line names, unless a complete one of the same pins is there."""
        target = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(HERE, self.name)
        stamp = self.digest(script)
        if read(os.path.join(target, "fetched")) == stamp:
            return
        started = time.time()
        self.download()
        print(f"unpacking {self.name}", file=sys.stderr, flush=True)
        staging = target + ".new"
        shutil.rmtree(staging, ignore_errors=True)
        for wheel in glob.glob(os.path.join(self.downloads, "*.whl")):
            self.unpack(wheel, staging)
        self.finish(staging)
        with open(os.path.join(staging, "fetched"), "w") as file:
            file.write(stamp + "\n")
        shutil.rmtree(target, ignore_errors=True)
        os.rename(staging, target)
        shutil.rmtree(self.downloads, ignore_errors=True)
        seconds = time.time() - started
        print(f"{self.name} {self.version} is in {os.path.relpath(target)} ({seconds:.0f} s)", file=sys.stderr)

    def fail(self, message):
        sys.exit(f"fetch_{self.name}: {message}")

    def digest(self, script):
        with open(self.requirements, "rb") as pins, open(script, "rb") as own:
            return hashlib.sha256(pins.read() + own.read()).hexdigest()

    def download(self):
        if sys.platform != "linux" or os.uname().machine != "x86_64":
            self.fail(f"the pinned {self.name} is for Linux on x86-64, this is {sys.platform} on {os.uname().machine}; "
                      f"{self.instead}")
        if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
            self.fail(f"{sys.executable} has no pip: install it (Debian: apt-get install python3-pip) and call this again")
        shutil.rmtree(self.downloads, ignore_errors=True)
        tmp = os.path.join(self.downloads, "tmp")
        os.makedirs(tmp)
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps",
                   "--only-binary=:all:", "--require-hashes", "--python-version", "3.12", "--implementation", "cp",
                   "--abi", "cp312", "--abi", "none", "--abi", "abi3", "-r", self.requirements, "-d", self.downloads]
        command += [flag for platform in PLATFORMS for flag in ("--platform", platform)]
        interactive = sys.stderr.isatty()
        done = threading.Event()
        if not interactive:
            command.append("--progress-bar=off")
            threading.Thread(target=self.report_progress, args=(done,), daemon=True).start()
        print(f"fetching {self.name} {self.version} ({self.megabytes} MB) with pip", file=sys.stderr, flush=True)
        result = subprocess.run(command, env={**os.environ, "TMPDIR": tmp}, stdout=None if interactive else subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
        done.set()
        shutil.rmtree(tmp, ignore_errors=True)
        if result.returncode != 0:
            lines = [line for line in result.stderr.splitlines() if "ERROR" in line] or result.stderr.splitlines()
            reason = lines[-1].strip() if lines else "no reason given"
            self.fail(f"pip could not download {self.name}: {reason} (is a Python package index within reach?)")

    def report_progress(self, done):
        while not done.wait(5):
            # While pip downloads, the wheel grows in a temporary folder of its own.
            files = glob.glob(os.path.join(self.downloads, "**", "*.whl"), recursive=True)
            size = sum(os.path.getsize(f) for f in files if os.path.exists(f)) // 2**20
            size = min(size, self.megabytes)  # pip copies a finished wheel, so for a moment it lies there twice
            print(f"  {self.name}: {size} of about {self.megabytes} MB", file=sys.stderr, flush=True)

    def unpack(self, wheel, folder):
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.namelist():
                place = None if entry.endswith("/") else self.place(os.path.basename(wheel), entry)
                if place is None:
                    continue
                path = os.path.join(folder, place)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with archive.open(entry) as source, open(path, "wb") as copy:
                    shutil.copyfileobj(source, copy, 2**20)


def read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except FileNotFoundError:
        return None
