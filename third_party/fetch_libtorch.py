#!/usr/bin/env python3
"""Fetches the pinned libtorch with pip and lays out the part of it that a machine without a GPU needs.

    python3 third_party/fetch_libtorch.py [DIR]        # DIR defaults to third_party/libtorch

Safe to call again: a complete folder of the same pins is left as it is.
"""

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
REQUIREMENTS = os.path.join(HERE, "libtorch.requirements")
DOWNLOADS = os.path.join(HERE, "downloads")
TOTAL_MB = 545

# What is taken out of which wheel. `libtorch_cpu` itself needs the two CUDA libraries; no other part of CUDA is taken.
WANTED = {
    "torch": re.compile(
        r"torch/(include/.*|lib/(libc10|libtorch_cpu)\.so|lib/libgomp\.so\.1)$"
        r"|torch-[^/]*\.dist-info/licenses/(LICENSE|NOTICE)$"
    ),
    "nvidia_cuda_runtime": re.compile(r".*/libcudart\.so\.13$"),
    "nvidia_cuda_cupti": re.compile(r".*/libcupti\.so\.13$"),
}


def fail(message):
    sys.exit(f"fetch_libtorch: {message}")


def pins_digest():
    with open(REQUIREMENTS, "rb") as pins, open(__file__, "rb") as script:
        return hashlib.sha256(pins.read() + script.read()).hexdigest()


def is_complete(target):
    try:
        with open(os.path.join(target, "fetched")) as stamp:
            return stamp.read().strip() == pins_digest()
    except FileNotFoundError:
        return False


def downloaded_mb():
    # While pip downloads, the wheel grows in a temporary folder of its own.
    patterns = [os.path.join(DOWNLOADS, "*.whl"), os.path.join(DOWNLOADS, "tmp", "**", "*.whl")]
    files = {f for p in patterns for f in glob.glob(p, recursive=True)}
    size = sum(os.path.getsize(f) for f in files if os.path.exists(f)) // 2**20
    return min(size, TOTAL_MB)  # pip copies a finished wheel, so for a moment it lies there twice


def report_progress(done):
    while not done.wait(5):
        print(f"  libtorch: {downloaded_mb()} of about {TOTAL_MB} MB", file=sys.stderr, flush=True)


def download():
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        fail(f"the pinned libtorch is for Linux on x86-64, this is {sys.platform} on {os.uname().machine}; "
             "install PyTorch 2.11 yourself and build with LIBTORCH_USE_PYTORCH=1")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        fail(f"{sys.executable} has no pip: install it (Debian: apt-get install python3-pip) and call this again")
    tmp = os.path.join(DOWNLOADS, "tmp")
    os.makedirs(tmp, exist_ok=True)
    platforms = ["manylinux_2_28_x86_64", "manylinux_2_25_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
               "--require-hashes", "--python-version", "3.12", "--implementation", "cp", "--abi", "cp312",
               "--abi", "none", "--abi", "abi3", "-r", REQUIREMENTS, "-d", DOWNLOADS]
    command += [flag for p in platforms for flag in ("--platform", p)]
    interactive = sys.stderr.isatty()
    done = threading.Event()
    if not interactive:
        command.append("--progress-bar=off")
        threading.Thread(target=report_progress, args=(done,), daemon=True).start()
    print(f"fetching libtorch 2.11.0 ({TOTAL_MB} MB) with pip", file=sys.stderr, flush=True)
    result = subprocess.run(command, env={**os.environ, "TMPDIR": tmp}, stdout=None if interactive else subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    done.set()
    shutil.rmtree(tmp, ignore_errors=True)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if "ERROR" in line] or result.stderr.splitlines()
        reason = lines[-1].strip() if lines else "no reason given"
        fail(f"pip could not download libtorch: {reason} (is a Python package index within reach?)")


def wheel(name):
    found = glob.glob(os.path.join(DOWNLOADS, f"{name}-*.whl"))
    if len(found) != 1:
        fail(f"expected one wheel {name}-*.whl in {DOWNLOADS}, found {len(found)}")
    return found[0]


def unpack(target):
    for name, wanted in WANTED.items():
        with zipfile.ZipFile(wheel(name)) as archive:
            for entry in archive.namelist():
                if not wanted.match(entry) or entry.endswith("/"):
                    continue
                if entry.startswith("torch/include/"):
                    place = entry[len("torch/"):]
                elif ".so" in entry:
                    place = "lib/" + os.path.basename(entry)
                else:
                    place = os.path.basename(entry)
                path = os.path.join(target, place)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with archive.open(entry) as source, open(path, "wb") as copy:
                    shutil.copyfileobj(source, copy, 2**20)
    # The wheel's libtorch.so needs libtorch_cuda.so. It holds no code of its own: a linker script says what it means here.
    with open(os.path.join(target, "lib", "libtorch.so"), "w") as script:
        script.write("INPUT(libtorch_cpu.so)\n")
    with open(os.path.join(target, "build-version"), "w") as version:
        version.write("2.11.0\n")


def main():
    target = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(HERE, "libtorch")
    if is_complete(target):
        return
    started = time.time()
    download()
    print("unpacking libtorch", file=sys.stderr, flush=True)
    staging = target + ".new"
    shutil.rmtree(staging, ignore_errors=True)
    unpack(staging)
    with open(os.path.join(staging, "fetched"), "w") as stamp:
        stamp.write(pins_digest() + "\n")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(staging, target)
    shutil.rmtree(DOWNLOADS, ignore_errors=True)
    print(f"libtorch 2.11.0 is in {os.path.relpath(target)} ({time.time() - started:.0f} s)", file=sys.stderr)


if __name__ == "__main__":
    main()
