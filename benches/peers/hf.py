"""transformers: `generate`, with a cache that grows and with a static one."""

import argparse
import time

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)

from .common import Report, progress, prompts, repeated, seconds, versions

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
# What names a decode rate, and the cache that transformers knows under another name.
CACHES = {"": None, "static_": "static"}


def load(asked: argparse.Namespace, dtype: torch.dtype) -> PreTrainedModel:
    """Reads the model, and takes the threads that were asked for."""
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(asked.model, dtype=dtype)


class Clock(LogitsProcessor):
    """Notes when the logits of each token are there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return scores


class Bench:
    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.model = load(asked, DTYPES[asked.dtype]).eval()
        self.model.generation_config = GenerationConfig()  # without an end: every row gets all its tokens

    def generate(
        self, batch: int, prompt: int, new: int, cache: str | None = None, sample: bool = True
    ) -> tuple[list[list[int]], list[float]]:
        """Returns the new tokens of each row, and when the logits of each were there."""
        config = GenerationConfig(
            max_new_tokens=new,
            do_sample=sample,
            top_k=0 if sample else None,
            cache_implementation=cache,
            disable_compile=True,
            pad_token_id=0,
        )
        tokens = torch.tensor(prompts(batch, prompt, self.model.config.vocab_size))
        clock = Clock()
        made = self.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            generation_config=config,
            logits_processor=LogitsProcessorList([clock]),
        )
        return made[:, prompt:].tolist(), clock.times

    def decode(self, batch: int, cache: str | None) -> float:
        """Times all tokens of each row but the first, which comes with the prompt."""
        _, times = self.generate(batch, self.asked.prompt, self.asked.new, cache)
        return batch * (len(times) - 1) / (times[-1] - times[0])

    def prefill(self, length: int) -> float:
        """Times a prompt and its first token."""
        return length / seconds(lambda: self.generate(1, length, 1))


def engine(asked: argparse.Namespace) -> Report:
    bench = Bench(asked)
    shape = f"p{asked.prompt}_n{asked.new}"
    progress("hf: greedy")
    greedy, _ = bench.generate(max(asked.batches, default=1), asked.prompt, asked.new, sample=False)
    results = [
        repeated(
            f"decode_b{batch}_{shape}_{name}tokens_per_s",
            "tokens/s",
            asked.repeats,
            lambda: bench.decode(batch, cache),
        )
        for batch in asked.batches
        for name, cache in CACHES.items()
    ]
    for length in asked.prefill:
        name = f"prefill_b1_t{length}_tokens_per_s"
        results.append(repeated(name, "tokens/s", asked.repeats, lambda: bench.prefill(length)))
    note = "generate: sampled from all tokens at temperature 1, sdpa attention; static is the static cache"
    return Report(versions("torch", "transformers"), results, note, greedy)
