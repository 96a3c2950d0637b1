"""TRL: whole iterations of its PPO and GRPO trainers."""

import argparse
import dataclasses
import functools
import math
import os
import tempfile
import time
from collections.abc import Callable

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from .common import Refused, Report, Result, progress, prompts, versions
from .hf import DTYPES, load

GROUP = 8
MICRO_BATCH = 8
PHASES = ["iteration", "generate", "score", "update"]


@dataclasses.dataclass
class Iteration:
    """When one iteration's phases ended."""

    start: float
    generated: float = 0.0
    scored: float = 0.0
    end: float = 0.0

    def seconds(self, phase: str) -> float:
        return {
            "iteration": self.end - self.start,
            "generate": self.generated - self.start,
            "score": self.scored - self.generated,
            "update": self.end - self.scored,
        }[phase]


class Stopwatch(TrainerCallback):
    """Splits a trainer's iterations; the trainer's own functions tell where they are."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.done = name, steps, 0
        self.iterations: list[Iteration] = []

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.now = Iteration(time.perf_counter())

    def on_step_end(self, *_: object, **__: object) -> None:
        """One of `steps` optimizer steps that an iteration has ended."""
        self.done += 1
        if self.done % self.steps == 0:
            self.now.end = time.perf_counter()
            self.iterations.append(self.now)
            progress(f"{self.name} iteration {len(self.iterations)}: {self.now.seconds('iteration'):.4g} s")
            self.now = Iteration(self.now.end)

    def after(self, work: Callable, phase: str) -> Callable:
        """Returns `work` as it is, noting when it ends."""

        def timed(*arguments: object, **named: object) -> object:
            result = work(*arguments, **named)
            setattr(self.now, phase, time.perf_counter())
            return result

        return timed

    def results(self) -> list[Result]:
        """What was measured, without the first iteration."""
        return [
            Result(f"{self.name}_{phase}_s", "s", [one.seconds(phase) for one in self.iterations[1:]])
            for phase in PHASES
        ]


def tokenizer(vocab_size: int, rows: list[list[int]]) -> PreTrainedTokenizerFast:
    """A word for each token, so that a model directory needs no tokenizer. Pads with one that no prompt has."""
    unused = set(range(vocab_size)).difference(*rows)
    if not unused:
        raise Refused(f"the prompts use all {vocab_size} tokens of the model, none is left to pad with")
    words = Tokenizer(models.WordLevel({str(token): token for token in range(vocab_size)}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = str(max(unused))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=end, eos_token=end, padding_side="left")


def shared(asked: argparse.Namespace, folder: str) -> dict[str, object]:
    """What both trainers are told: all prompts in one optimizer step, and nothing but training."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": MICRO_BATCH,
        "gradient_accumulation_steps": asked.prompts // MICRO_BATCH,
        "gradient_checkpointing": False,
        "bf16": False,  # on a CPU only the environment turns it on
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def run_ppo(asked: argparse.Namespace, rows: list[list[int]], folder: str) -> list[Result]:
    scorer = functools.partial(AutoModelForSequenceClassification.from_pretrained, asked.model, num_labels=1)
    frozen = DTYPES[asked.dtype]
    stopwatch = Stopwatch("ppo", steps=1)
    policy = load(asked, torch.float32)
    trainer = PPOTrainer(
        args=PPOConfig(
            **shared(asked, folder),
            num_ppo_epochs=asked.epochs,
            response_length=asked.new,
            total_episodes=asked.prompts * (asked.repeats + 1),
            local_rollout_forward_batch_size=asked.prompts,
            num_sample_generations=0,
        ),
        processing_class=tokenizer(policy.config.vocab_size, rows),
        model=policy,
        ref_model=load(asked, frozen),
        reward_model=scorer(dtype=frozen),
        value_model=scorer(dtype=torch.float32),
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        callbacks=[stopwatch],
    )
    ppo_trainer.batch_generation = stopwatch.after(ppo_trainer.batch_generation, "generated")
    ppo_trainer.masked_whiten = stopwatch.after(ppo_trainer.masked_whiten, "scored")
    trainer.train()
    return stopwatch.results()


def run_grpo(asked: argparse.Namespace, rows: list[list[int]], folder: str) -> list[Result]:
    stopwatch = Stopwatch("grpo", steps=asked.epochs)
    policy = load(asked, torch.float32)
    trainer = GRPOTrainer(
        args=GRPOConfig(
            **shared(asked, folder),
            num_iterations=asked.epochs,
            num_generations=GROUP,
            max_completion_length=asked.new,
            max_steps=asked.epochs * (asked.repeats + 1),
            beta=0.04,
            # Under autocast values are bf16, and a static cache of f32 refuses them.
            cache_implementation="static" if asked.dtype == "f32" else None,
            generation_kwargs={"min_new_tokens": asked.new},
        ),
        processing_class=tokenizer(policy.config.vocab_size, rows),
        model=policy,
        reward_funcs=reward,
        train_dataset=Dataset.from_dict(
            {"prompt": [" ".join(map(str, row)) for row in rows[: asked.prompts // GROUP]]}
        ),
        callbacks=[stopwatch],
    )
    trainer._generate_single_turn = stopwatch.after(trainer._generate_single_turn, "generated")
    trainer._generate_and_score_completions = stopwatch.after(
        trainer._generate_and_score_completions, "scored"
    )
    trainer.train()
    return stopwatch.results()


def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
    """How many different tokens a completion has."""
    return [float(len(set(tokens))) for tokens in completion_ids]


def ppo(asked: argparse.Namespace) -> Report:
    if asked.prompts % math.lcm(GROUP, MICRO_BATCH) != 0:
        raise Refused(f"--prompts must be a multiple of {math.lcm(GROUP, MICRO_BATCH)}, got {asked.prompts}")
    os.environ["ACCELERATE_MIXED_PRECISION"] = {"f32": "no", "bf16": "bf16"}[asked.dtype]
    vocab_size = AutoConfig.from_pretrained(asked.model).vocab_size
    rows = prompts(asked.prompts, asked.prompt, vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        results = run_ppo(asked, rows, folder) + run_grpo(asked, rows, folder)
    precision = {
        "f32": "f32, GRPO with the static cache",
        "bf16": "bf16 by ACCELERATE_MIXED_PRECISION, PPO's frozen models in bf16",
    }[asked.dtype]
    note = (
        f"epochs: {asked.epochs}, micro-batches of {MICRO_BATCH}, {precision}; "
        f"GRPO: groups of {GROUP}, a reward function, beta 0.04"
    )
    return Report(versions("trl", "torch", "transformers", "accelerate"), results, note)
