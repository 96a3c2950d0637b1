"""llama.cpp: its own batched benchmark."""

import argparse
import json
import logging
import pathlib
import subprocess
import sys
import tempfile

from .common import Refused, Report, Result, progress

HOME = pathlib.Path(__file__).resolve().parents[2] / "target/peers/llama.cpp"


def convert(model: pathlib.Path, dtype: str, file: pathlib.Path) -> None:
    """Writes the model as llama.cpp reads it, without a tokenizer: its benchmark makes up tokens."""
    sys.path[:0] = [str(HOME / "source"), str(HOME / "source/gguf-py")]
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    logging.disable(logging.INFO)
    hparams = ModelBase.load_hparams(model, False)
    converter = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    ftype = {"f32": gguf.LlamaFileType.ALL_F32, "bf16": gguf.LlamaFileType.MOSTLY_BF16}[dtype]
    writer = converter(model, ftype, file)

    def set_vocab() -> None:
        writer.gguf_writer.add_tokenizer_model("none")
        key = gguf.Keys.LLM.VOCAB_SIZE.format(arch=writer.gguf_writer.arch)
        if all(key not in shard for shard in writer.gguf_writer.kv_data):
            writer.gguf_writer.add_vocab_size(hparams["vocab_size"])

    writer.set_vocab = set_vocab
    writer.write()


def rounds(asked: argparse.Namespace, file: pathlib.Path, prompt: int, new: int, batches: list[int]) -> list[dict]:
    """Runs the benchmark once for all `batches`: each is generated anew, prompt and all.

    Its logger loses what it has not written when the program ends, so one more round, of one row, comes last.
    """
    command = [HOME / "build/bin/llama-batched-bench", "-m", file, "-t", asked.threads, "-tb", asked.threads]
    command += ["-npp", prompt, "-ntg", new, "-npl", ",".join(map(str, [*batches, 1])), "--output-format", "jsonl"]
    command += ["-c", max(batches) * (-(-(prompt + new) // 256) * 256)]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"llama-batched-bench failed: {done.stderr[-2000:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(lines) < len(batches):
        raise RuntimeError(f"llama-batched-bench measured {len(lines)} of {len(batches)}: {done.stderr[-2000:]}")
    return lines[: len(batches)]


def engine(asked: argparse.Namespace) -> Report:
    if not (HOME / "requirements.done").is_file():
        raise Refused("no target/peers/llama.cpp, make it with benches/peers/setup.sh llamacpp")
    times = asked.repeats + 1  # the first does not count
    results = []
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.gguf"
        progress("llamacpp: converting")
        convert(asked.model, asked.dtype, file)
        for batch in asked.batches:
            name = f"decode_b{batch}_p{asked.prompt}_n{asked.new}_tokens_per_s"
            found = rounds(asked, file, asked.prompt, asked.new, [batch] * times)
            results.append(result(name, [one["speed_tg"] for one in found]))
        for length in asked.prefill:
            found = rounds(asked, file, length, 1, [1] * times)
            results.append(result(f"prefill_b1_t{length}_tokens_per_s", [one["speed_pp"] for one in found]))
    note = "llama-batched-bench on tokens it makes up, without sampling; its cache holds f16"
    return Report(built(), results, note)


def result(name: str, values: list[float]) -> Result:
    progress(f"{name}: " + ", ".join(f"{value:.4g}" for value in values[1:]))
    return Result(name, "tokens/s", values[1:])


def built() -> dict[str, str]:
    """Which source was built: the pin, without its hashes."""
    pin = (HOME / "requirements.done").read_text()
    name, version = next(line for line in pin.splitlines() if "==" in line).split()[0].split("==")
    return {"llama.cpp of " + name: version}
