"""The command line: one benchmark of one peer, its result as one line of JSON."""

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import sys
import typing

from .common import Refused

BENCHMARKS = {"hf": "engine", "llamacpp": "engine", "torch": "train", "trl": "ppo"}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> typing.NoReturn:
        raise Refused(message)


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 1")
    return int(text)


def counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def model(text: str) -> pathlib.Path:
    """A model directory."""
    path = pathlib.Path(text)
    if not (path / "config.json").is_file():
        raise argparse.ArgumentTypeError(f"'{text}' has no config.json, so it is no model directory")
    if not any(path.glob("*.safetensors")):
        raise argparse.ArgumentTypeError(f"'{text}' has no *.safetensors, so the model has no weights")
    return path


def new_file(text: str) -> pathlib.Path:
    """A file to be written."""
    path = pathlib.Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is no file in a folder that exists")
    return path


def parser() -> Parser:
    root = Parser(prog="run.sh", allow_abbrev=False)
    peers = root.add_subparsers(dest="peer", required=True, parser_class=Parser)
    for peer, what in BENCHMARKS.items():
        benchmark = peers.add_parser(peer).add_subparsers(dest="what", required=True, parser_class=Parser)
        add_options(benchmark.add_parser(what, allow_abbrev=False), what)
    return root


def add_options(options: Parser, what: str) -> None:
    cores = len(os.sched_getaffinity(0))
    options.add_argument("--model", type=model, required=True)
    options.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    options.add_argument("--threads", type=count, default=cores)
    options.add_argument("--repeats", type=count, default=5)
    if what == "engine":
        options.add_argument("--batch", type=counts, action="extend", dest="batches", default=[])
        options.add_argument("--prefill", type=counts, action="extend", default=[])
        options.add_argument("--prompt", type=count, default=32)
        options.add_argument("--new", type=count, default=64)
    elif what == "train":
        options.add_argument("--rows", type=count, default=8)
        options.add_argument("--length", type=count, default=256)
        options.add_argument("--gradients", type=new_file)
    else:
        options.add_argument("--prompts", type=count, default=32)
        options.add_argument("--prompt", type=count, default=32)
        options.add_argument("--new", type=count, default=64)
        options.add_argument("--epochs", type=count, default=1)


def main() -> None:
    # A library that prints to standard output does not get between the caller and the JSON.
    out, sys.stdout = sys.stdout, sys.stderr
    asked = parser().parse_args()
    peer = importlib.import_module(f".{asked.peer}", __package__)
    report = getattr(peer, asked.what)(asked)
    print(json.dumps({"peer": asked.peer, **dataclasses.asdict(report)}), file=out)


try:
    main()
except Refused as refused:
    print(f"run.sh: {refused}", file=sys.stderr)
    sys.exit(2)
