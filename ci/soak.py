#!/usr/bin/env python3
"""Runs a command for some minutes and fails unless its memory, threads and open files stay flat.

    ci/soak.py MINUTES RUN_DIRECTORY COMMAND...

The first quarter of the time is warm-up. Over the rest, the resident set's least-squares slope must stay below
GROWTH MiB an hour and its largest value within SPREAD of its median; threads and open files must not grow. Samples go to
RUN_DIRECTORY/../soak.csv. Linux only: it reads /proc.
"""

import os
import signal
import statistics
import subprocess
import sys
import time

GROWTH = 16.0
SPREAD = 1.05
PERIOD = 2.0
STOPPED = (0, 130, 143, -signal.SIGTERM)


def sample(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        status = dict(line.split(":", 1) for line in file)
    return {
        "rss_mib": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


def watch(process, minutes):
    """Returns samples of (seconds, values) until the time is over; raises if the process ends before."""
    started, samples = time.monotonic(), []
    while (elapsed := time.monotonic() - started) < minutes * 60:
        if process.poll() is not None:
            sys.exit(f"the run ended by itself after {elapsed:.0f} s with exit code {process.returncode}")
        try:
            samples.append((elapsed, sample(process.pid)))
        except (OSError, KeyError):
            pass  # it ends just now: the next look says so
        time.sleep(PERIOD)
    return samples


def slope(points):
    """Least-squares slope, per hour."""
    times, values = zip(*points)
    mean_time, mean_value = statistics.fmean(times), statistics.fmean(values)
    over = sum((t - mean_time) * (v - mean_value) for t, v in points)
    return 3600 * over / sum((t - mean_time) ** 2 for t in times)


def table(samples):
    print(f"{'minute':>6} {'RSS MiB':>8} {'threads':>7} {'files':>5}")
    for row in range(11):
        elapsed, values = samples[row * (len(samples) - 1) // 10]
        print(f"{elapsed / 60:6.1f} {values['rss_mib']:8.1f} {values['threads']:7} {values['files']:5}")


def problems(samples):
    warm = [(t, v) for t, v in samples if t >= samples[-1][0] / 4]
    rss = [(t, v["rss_mib"]) for t, v in warm]
    growth, largest, median = slope(rss), max(v for _, v in rss), statistics.median(v for _, v in rss)
    print(f"after warm-up: {growth:+.1f} MiB an hour, largest {largest:.1f} MiB, median {median:.1f} MiB")
    if growth > GROWTH:
        yield f"memory grows by {growth:.1f} MiB an hour, allowed are {GROWTH}"
    if largest > SPREAD * median:
        yield f"memory peaks at {largest:.1f} MiB, allowed are {SPREAD} times the median {median:.1f}"
    half = len(warm) // 2
    for name in ("threads", "files"):
        # Medians: a file that is being written is open for a moment.
        before, after = (statistics.median(v[name] for _, v in part) for part in (warm[:half], warm[half:]))
        if after > before:
            yield f"{name} grow from {before} to {after}"


def main():
    minutes, run, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    process = subprocess.Popen(command)
    try:
        samples = watch(process, minutes)
    finally:
        process.terminate()
    code = process.wait(timeout=300)
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
        steps = sum(1 for _ in file)
    with open(os.path.join(os.path.dirname(run), "soak.csv"), "w", encoding="utf-8") as file:
        print("seconds,rss_mib,threads,files", file=file)
        for elapsed, values in samples:
            print(f"{elapsed:.1f},{values['rss_mib']:.2f},{values['threads']},{values['files']}", file=file)
    table(samples)
    found = list(problems(samples))
    print(f"{steps} iterations in {minutes:g} minutes")
    if steps == 0:
        found.append("no iteration ended")
    if code not in STOPPED:
        found.append(f"stopped by SIGTERM it ended with exit code {code}")
    for problem in found:
        print(f"soak: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
