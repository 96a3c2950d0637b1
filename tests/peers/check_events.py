"""Reads run directories with TensorBoard's own reader and compares with metrics.jsonl.

Prints a line for each RUN; exits 1 at the first whose scalars are not, step by step, the metrics.
"""

import json
import math
import pathlib
import sys

import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def scalars(run):
    reader = EventAccumulator(str(run), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def metrics(run):
    expected = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(line)
        step = line.pop("step")
        for name, value in line.items():
            number = math.nan if value is None else float(numpy.float32(value))
            expected.setdefault(name, []).append((step, number))
    return expected


def same(theirs, ours):
    steps = [step for step, _ in theirs] == [step for step, _ in ours]
    return steps and numpy.array_equal([v for _, v in theirs], [v for _, v in ours], equal_nan=True)


def main():
    for run in map(pathlib.Path, sys.argv[1:]):
        theirs, ours = scalars(run), metrics(run)
        if theirs.keys() != ours.keys():
            raise SystemExit(f"{run.name}: only one side has {sorted(theirs.keys() ^ ours.keys())}")
        for name, points in ours.items():
            if not same(theirs[name], points):
                raise SystemExit(f"{run.name}: {name}: TensorBoard has {theirs[name]}, metrics.jsonl {points}")
        files = len(list(run.glob("events.out.tfevents.*")))
        steps = len(next(iter(ours.values())))
        print(f"{run.name}: {len(ours)} scalars of {steps} steps read by TensorBoard from {files} files")


main()
