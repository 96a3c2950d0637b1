"""transformers: `generate`, with a cache that grows and with a static one."""

import argparse
import time

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor

from .common import Report, Result, prompts, progress, repeated, seconds, versions

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
CACHES = {"dynamic": None, "static": "static"}


class Clock(LogitsProcessor):
    """Notes when the logits of each token are there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return scores


class Engine:
    def __init__(self, asked: argparse.Namespace) -> None:
        torch.set_num_threads(asked.threads)
        torch.manual_seed(0)
        self.asked = asked
        self.model = AutoModelForCausalLM.from_pretrained(asked.model, dtype=DTYPES[asked.dtype]).eval()
        self.model.generation_config = GenerationConfig()  # no end of sequence: every row gets all its tokens

    def generate(self, batch: int, prompt: int, new: int, cache: str, **how: object) -> torch.Tensor:
        config = GenerationConfig(
            max_new_tokens=new, cache_implementation=CACHES[cache], disable_compile=True, pad_token_id=0
        )
        config.update(**{name: value for name, value in how.items() if name != "logits_processor"})
        tokens = torch.tensor(prompts(batch, prompt, self.model.config.vocab_size))
        clock = how.get("logits_processor")
        extra = {"logits_processor": [clock]} if clock else {}
        made = self.model.generate(
            tokens, attention_mask=torch.ones_like(tokens), generation_config=config, **extra
        )
        return made[:, prompt:]

    def decode(self, batch: int, cache: str) -> float:
        """Times all tokens of each sequence but the first, sampled as in a rollout."""
        clock = Clock()
        self.generate(batch, self.asked.prompt, self.asked.new, cache, **SAMPLED, logits_processor=clock)
        return batch * (len(clock.times) - 1) / (clock.times[-1] - clock.times[0])

    def prefill(self, length: int) -> float:
        """Times a prompt and its first token."""
        return length / seconds(lambda: self.generate(1, length, 1, "dynamic", **SAMPLED))
