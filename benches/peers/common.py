"""What the peers share: the prompts, the way to measure, and what is reported."""

import dataclasses
import importlib.metadata
import sys
import time
from collections.abc import Callable


class Refused(Exception):
    """What was asked for cannot be done; the message is one line."""


@dataclasses.dataclass
class Result:
    """One thing that was measured, each time."""

    name: str
    unit: str
    values: list[float]


@dataclasses.dataclass
class Report:
    """What one run of a peer found."""

    versions: dict[str, str]
    results: list[Result]
    note: str
    greedy: list[list[int]] | None = None


def versions(*packages: str) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}


def prompts(rows: int, length: int, vocab_size: int) -> list[list[int]]:
    """The same tokens as Rollforge's own benchmarks."""
    return [[(row * 31 + i * 7) % vocab_size for i in range(length)] for row in range(rows)]


def repeated(name: str, unit: str, repeats: int, once: Callable[[], float]) -> Result:
    """Measures `repeats` times, after a first time that does not count."""
    once()
    values = []
    for time_of in range(repeats):
        values.append(once())
        progress(f"{name} {time_of + 1}/{repeats}: {values[-1]:.4g} {unit}")
    return Result(name, unit, values)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
