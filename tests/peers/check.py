"""Loads model directories that rollforge wrote, as anybody would, and compares with what rollforge says of them.

Each DIR holds a model and `ours.json`, written by tests/peers.rs. Prints a line for each; exits 1 at the first that is
wrong.
"""

import json
import pathlib
import sys

import torch
from peft import PeftConfig, PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

TOLERANCE = 1e-4  # relative to the largest


def same(what, theirs, ours):
    if theirs != ours:
        raise SystemExit(f"{what}: transformers has {theirs!r}, rollforge {ours!r}")


def close(what, theirs, ours):
    theirs, ours = theirs.flatten(), torch.tensor(ours, dtype=torch.float32)
    same(f"{what}, count", len(theirs), len(ours))
    error = ((theirs - ours).abs().max() / ours.abs().max()).item()
    if not error <= TOLERANCE:
        raise SystemExit(f"{what}: differ by {error:.2e} of the largest")
    return error


def load(auto, directory):
    model, info = auto.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        same(f"{directory.name}: {kind}", sorted(info[kind]), [])
    return model.eval()


@torch.no_grad()
def check_weights(directory, ours):
    tokens = torch.tensor([ours["tokens"]])
    auto = AutoModelForCausalLM if ours["head"] == "languagemodel" else AutoModelForSequenceClassification
    model = load(auto, directory)
    if ours["labels"]:
        names = dict(enumerate(ours["labels"]))
        same(f"{directory.name}: labels", model.config.id2label, names)
        same(f"{directory.name}: label ids", model.config.label2id, {name: n for n, name in names.items()})
        same(f"{directory.name}: problem type", model.config.problem_type, "regression")
    same(f"{directory.name}: dtype", str(AutoConfig.from_pretrained(directory).dtype), ours["dtype"])
    same(f"{directory.name}: parameters", model.num_parameters(), ours["parameters"])
    return close(f"{directory.name}: outputs", model(tokens).logits, ours["outputs"])


@torch.no_grad()
def check_adapter(directory, ours):
    tokens = torch.tensor([ours["tokens"]])
    config = PeftConfig.from_pretrained(directory)
    is_lm = ours["head"] == "languagemodel"
    same(f"{directory.name}: task", config.task_type, "CAUSAL_LM" if is_lm else "SEQ_CLS")
    auto = AutoModelForCausalLM if is_lm else AutoModelForSequenceClassification
    base = load(auto, pathlib.Path(config.base_model_name_or_path))
    model = PeftModel.from_pretrained(base, directory).eval()
    load_result = model.load_adapter(directory, "again")
    same(f"{directory.name}: unexpected keys", load_result.unexpected_keys, [])
    missing = [name for name in load_result.missing_keys if ".again." in name]
    same(f"{directory.name}: missing keys", missing, [])
    model.set_adapter("default")
    return close(f"{directory.name}: outputs", model(tokens).logits, ours["outputs"])


def check_text(directory, ours):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for sample in ours["texts"]:
        text = sample["text"]
        same(f"ids of {text!r}", tokenizer(text)["input_ids"], sample["ids"])
        same(f"plain ids of {text!r}", tokenizer(text, add_special_tokens=False)["input_ids"], sample["plain_ids"])
        decode = lambda skip: tokenizer.decode(
            sample["ids"], skip_special_tokens=skip, clean_up_tokenization_spaces=False
        )
        same(f"decoded ids of {text!r}", decode(False), sample["decoded"])
        same(f"decoded ids of {text!r} without special ones", decode(True), sample["decoded_plain"])
    for name in ("bos_token", "eos_token", "pad_token"):
        same(name, getattr(tokenizer, name), ours["special"][name])
    for chat in ours["chats"]:
        render = lambda **more: tokenizer.apply_chat_template(
            chat["messages"], add_generation_prompt=chat["add_generation_prompt"], **more
        )
        same("chat", render(tokenize=False), chat["text"])
        same("chat ids", render(tokenize=True, return_dict=False), chat["ids"])


def check_generation(directory, ours):
    config = GenerationConfig.from_pretrained(directory)
    for name, value in ours["generation"].items():
        same(f"{directory.name}: {name}", getattr(config, name), value)


def main():
    for directory in map(pathlib.Path, sys.argv[1:]):
        ours = json.loads((directory / "ours.json").read_text())
        if (directory / "adapter_config.json").exists():
            error = check_adapter(directory, ours)
            print(f"{directory.name}: read by peft, outputs within {error:.0e}")
            continue
        error = check_weights(directory, ours)
        if ours["generation"]:
            check_generation(directory, ours)
        if ours["texts"]:
            check_text(directory, ours)
        print(f"{directory.name}: read by transformers, outputs within {error:.0e}")


main()
