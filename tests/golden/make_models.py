"""Writes models/: tiny models with every weight random, and what transformers computes from them.

Run by hand with the versions below; the results are committed. The format is in README.md.
"""

import math
import pathlib
import random
import shutil

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, CONFIG_MAPPING

from model_settings import COMMON, MODELS, TOKENS

assert torch.__version__.split("+")[0] == "2.11.0", torch.__version__
assert transformers.__version__ == "5.23.0", transformers.__version__

HERE = pathlib.Path(__file__).parent
NEW_TOKENS = 16
SMALLEST_GAP = 1e-3  # between the two best logits of a greedy step, so that rounding cannot change the choice


def config_of(family, base, changes):
    fields = COMMON | base | changes
    theta, scaling = fields.pop("rope_theta"), fields.pop("rope_scaling", {"rope_type": "default"})
    return CONFIG_MAPPING[family](rope_parameters={"rope_theta": theta} | scaling, **fields)


@torch.no_grad()
def randomise(model, generator):
    """Norm weights near 1, biases near 0, matrices such that logits and attention vary."""
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            weight.copy_(1 + 0.3 * noise)
        elif name.endswith("bias"):
            weight.copy_(0.1 * noise)
        elif "embed" in name:
            weight.copy_(0.6 * noise)
        else:
            weight.copy_(noise * 1.5 / math.sqrt(weight.shape[1]))


def greedy(model, prompt):
    """Returns the continuation, or None when a step was too close to call or an EOS was emitted."""
    tokens, stops = list(prompt), model.config.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    for _ in range(NEW_TOKENS):
        best = model(torch.tensor([tokens])).logits[0, -1].topk(2)
        if best.values[0] - best.values[1] < SMALLEST_GAP or best.indices[0] in stops:
            return None
        tokens.append(int(best.indices[0]))
    continuation = tokens[len(prompt) :]
    cached = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)
    assert cached[0, len(prompt) :].tolist() == continuation
    return continuation if len(set(continuation)) > 5 else None


@torch.no_grad()
def greedy_case(model, rng):
    while True:
        prompt = [rng.randrange(3, model.config.vocab_size) for _ in range(9)]
        if continuation := greedy(model, prompt):
            return {"greedy_prompt": torch.tensor(prompt), "greedy_tokens": torch.tensor(continuation)}


def forward(model, tokens, head):
    """Logits [S, vocab], or scores [S]."""
    if head == "lm":
        return model(tokens[None]).logits[0]
    return model.score(model.model(tokens[None]).last_hidden_state)[0, :, 0]


def expected(directory, auto, tokens, head, rng):
    # Loaded anew rather than converted: `Module.to` would round the rotary frequencies too.
    load = lambda dtype: auto.from_pretrained(directory, attn_implementation="eager", dtype=dtype).eval()
    model, name = load(torch.float32), "logits" if head == "lm" else "scores"
    output = forward(model, tokens, head)
    if head == "lm":
        loss = torch.nn.functional.cross_entropy(output[:-1], tokens[1:])
    else:
        loss = output.square().mean() / 2
    loss.backward()
    result = {"tokens": tokens, name: output.detach(), "loss": loss.detach()[None]}
    for parameter, weight in model.named_parameters():
        result[f"grad.{parameter}"] = weight.grad
    if head == "lm":
        result |= greedy_case(model, rng)
    with torch.no_grad():
        result[f"{name}_bf16"] = forward(load(torch.bfloat16), tokens, head).float()
    return {key: value.contiguous() for key, value in result.items()}


def make(directory, seed, family, base, changes, dtype, head, shard):
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    config = config_of(family, base, changes)
    if head == "score":
        config.num_labels = 1
    auto = AutoModelForCausalLM if head == "lm" else AutoModelForSequenceClassification
    model = auto.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    randomise(model, generator)
    shutil.rmtree(directory, ignore_errors=True)
    model.to(getattr(torch, dtype)).save_pretrained(directory, **({"max_shard_size": shard} if shard else {}))
    tokens = torch.randint(3, config.vocab_size, (TOKENS,), generator=generator)
    metadata = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    save_file(expected(directory, auto, tokens, head, rng), directory / "expected.safetensors", metadata)


def main():
    torch.set_num_threads(1)
    for seed, (name, settings) in enumerate(MODELS.items()):
        make(HERE / "models" / name, seed, *settings)
        print(name)


main()
