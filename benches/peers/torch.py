"""PyTorch: a transformers model, mean cross entropy, backward, AdamW."""

import argparse
import contextlib

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from .common import Report, Result, prompts, repeated, seconds, versions
from .hf import load


def loss(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """The mean cross entropy of all tokens but the first of each row."""
    return model(input_ids=tokens, labels=tokens, use_cache=False).loss


def write_gradients(asked: argparse.Namespace, model: PreTrainedModel, tokens: torch.Tensor) -> None:
    loss(model, tokens).backward()
    save_file({name: weight.grad for name, weight in model.named_parameters()}, asked.gradients)
    model.zero_grad()


def measured(asked: argparse.Namespace, name: str, model: PreTrainedModel, autocast: bool) -> Result:
    tokens = batch(asked, model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            value = loss(model, tokens)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    name = f"train_{asked.rows}x{asked.length}_{name}tokens_per_s"
    return repeated(name, "tokens/s", asked.repeats, lambda: tokens.numel() / seconds(step))


def batch(asked: argparse.Namespace, model: PreTrainedModel) -> torch.Tensor:
    return torch.tensor(prompts(asked.rows, asked.length, model.config.vocab_size))


def train(asked: argparse.Namespace) -> Report:
    model = load(asked, torch.float32).train()
    if asked.gradients:
        write_gradients(asked, model, batch(asked, model))
    results = [measured(asked, "", model, autocast=asked.dtype == "bf16")]
    if asked.dtype == "bf16":
        results.append(measured(asked, "pure_", model.bfloat16(), autocast=False))
        note = "forward in bf16 by autocast, weights and AdamW in f32; pure has weights and AdamW in bf16 too"
    else:
        note = "everything in f32"
    return Report(versions("torch", "transformers"), results, f"{note}; fused AdamW, sdpa attention")
