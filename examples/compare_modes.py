"""Runs one PPO configuration in each mode of the queue and says what each came to.

    cargo build --release
    python3 examples/make_digits.py
    target/release/rollforge new-model examples/digits-model.toml --text examples/digits/digits.txt --output examples/digits/model
    python3 examples/compare_modes.py examples/reverse.toml --iterations 40

Of every run the first iterations are left out. Compare numbers of one machine that does nothing else, and of more than one round.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

MODES = {
    "sync": ["queue.mode=sync"],
    "one_step_off": ["queue.mode=one_step_off"],
    "async": ["queue.mode=async"],
    "async, by arrival": ["queue.mode=async", "queue.order=arrival"],
    "async, by arrival, keep": ["queue.mode=async", "queue.order=arrival", "engine.refit_in_flight=keep"],
}
COLUMNS = ["timing_s/step", "timing_s/gen", "timing_s/settle", "perf/throughput", "queue/lag_mean", "objective/scores"]
SKIPPED = 3

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("config")
parser.add_argument("--program", default="target/release/rollforge")
parser.add_argument("--iterations", type=int, default=20)
parser.add_argument("--rounds", type=int, default=3)
arguments = parser.parse_args()


def run(settings, folder):
    settings = [f"ppo.iterations={arguments.iterations}", "log.every=1", *settings]
    overrides = [part for setting in settings for part in ("--set", setting)]
    command = [arguments.program, "ppo", "--config", arguments.config, "--output-dir", folder, "--clean", "--quiet"]
    subprocess.run(command + overrides, check=True, stdout=subprocess.DEVNULL)
    lines = pathlib.Path(folder, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][SKIPPED:]


print(f"{'':26}" + "".join(f"{name:>18}" for name in COLUMNS))
with tempfile.TemporaryDirectory() as folder:
    # Round by round, so that whatever else the machine does meets every mode.
    for number in range(1, arguments.rounds + 1):
        for mode, settings in MODES.items():
            rows = run(settings, folder + "/run")
            medians = [statistics.median(row[name] for row in rows) for name in COLUMNS]
            print(f"{number} {mode:24}" + "".join(f"{median:18.4g}" for median in medians), flush=True)
