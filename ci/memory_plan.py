#!/usr/bin/env python3
"""Predicted against measured memory: runs twenty-three configurations one after the other and holds `plan.json`, written before
anything is loaded, against the largest resident set of the process (`ru_maxrss`).

    cargo build --release && ci/memory_plan.py            # prints the table
    ci/memory_plan.py --write                             # puts it into docs/memory.md
    ci/memory_plan.py --only 3 7                          # rows 3 and 7
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "memory.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
MIB = 1 << 20

# Random weights: memory does not depend on what they are.
SHAPES = {
    "30M": dict(vocab_size=8192, hidden_size=512, intermediate_size=1408, num_layers=8, num_heads=8),
    "85M": dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_layers=16, num_heads=9, num_kv_heads=3),
    "36M": dict(vocab_size=128000, hidden_size=256, intermediate_size=704, num_layers=4, num_heads=4),
}

CHECKPOINTING = "model.activation_checkpointing=true"
BF16 = "model.dtype=bf16"
LORA = "lora.rank=8"
RLOO = ["ppo.advantage=rloo", "ppo.samples_per_prompt=4"]
KL = "ppo.kl_coef=0.05"
# Stage, shape, sequence length (PPO: prompt and completion), sequences of a step, micro-batch tokens, what else is set.
ROWS = [
    ("sft", "30M", 256, 8, 2048, []),
    ("sft", "30M", 256, 16, 4096, [CHECKPOINTING]),
    ("sft", "30M", 256, 8, 2048, [BF16]),
    ("sft", "85M", 128, 4, 512, []),
    ("rm", "30M", 128, 8, 2048, []),
    ("rm", "85M", 128, 4, 1024, [BF16, CHECKPOINTING]),
    ("ppo", "30M", 64, 16, 1024, []),
    ("ppo", "30M", 64, 32, 2048, [BF16, "reward=model"]),
    ("ppo", "30M", 64, 16, 1024, ["queue.mode=async"]),
    ("ppo", "30M", 64, 4, 256, ["ppo.kl_coef=0.0", "engine.kv_cache_tokens=32768"]),
    ("ppo", "36M", 64, 16, 1024, []),
    ("ppo", "85M", 64, 4, 256, ["queue.mode=one_step_off", CHECKPOINTING]),
    ("dpo", "30M", 128, 8, 2048, []),
    ("dpo", "30M", 128, 8, 2048, ["model.reference=other"]),
    # What an adapter saves: docs/lora.md. Row 4 is the first one's other half.
    ("sft", "85M", 128, 4, 512, [LORA]),
    ("sft", "85M", 128, 4, 512, [LORA, BF16]),
    ("dpo", "85M", 128, 4, 512, []),
    ("dpo", "85M", 128, 4, 512, [LORA]),
    ("ppo", "85M", 64, 4, 256, []),
    ("ppo", "85M", 64, 4, 256, [LORA]),
    ("ppo", "85M", 64, 4, 256, [*RLOO, KL]),
    ("ppo", "85M", 64, 4, 256, [*RLOO, KL, LORA]),
    # Without a penalty there is no reference: against row 21.
    ("ppo", "85M", 64, 4, 256, [*RLOO, "ppo.kl_coef=0.0"]),
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "rollforge")
    arguments.add_argument("--steps", type=int, default=1, help="optimizer steps of each run")
    arguments.add_argument("--only", type=int, nargs="*", help="rows, counted from 1")
    arguments.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    arguments = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        world = World(arguments.binary.resolve(), pathlib.Path(folder), arguments.steps)
        for number in arguments.only or range(1, len(ROWS) + 1):
            rows.append((number, ROWS[number - 1], *world.measure(number, ROWS[number - 1])))
            print(line(*rows[-1]), file=sys.stderr, flush=True)
    table = render(rows)
    print(table)
    if arguments.write:
        text = DOCUMENT.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


class World:
    """A folder with models, data and runs."""

    def __init__(self, binary, folder, steps):
        self.binary, self.folder, self.steps = binary, folder, steps
        self.environment = os.environ | {"OMP_WAIT_POLICY": "passive"}

    def run(self, *arguments):
        """Runs the program, returns its largest resident set in bytes."""
        command = ["nice", str(self.binary), *map(str, arguments)]
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            sys.exit(f"{' '.join(command)} failed:\n{said}")
        return usage.ru_maxrss * 1024

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def model(self, name):
        path = self.folder / f"model-{name}"
        if not path.exists():
            shape = SHAPES[name] | {"max_positions": 512, "tokenizer": str(self.tokenizer())}
            self.run("new-model", self.write("model.toml", toml(shape)), "--output", path)
        return path

    def tokenizer(self):
        """Makes a tokenizer to which every digit is a token."""
        path = self.folder / "digits"
        if not path.exists():
            text = self.write("digits.txt", "0123456789\n")
            shape = dict(vocab_size=280, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1)
            self.run("new-model", self.write("model.toml", toml(shape)), "--text", text, "--output", path)
        return path

    def reward_model(self, shape):
        path = self.folder / f"reward-{shape}"
        if not path.exists():
            self.stage("rm", shape, (8, 2, 64), path, [])
        return path

    def data(self, stage, length, rows):
        """Writes so many samples of that length in tokens, which with `append_eos` is one more than its digits."""
        digits = lambda row, count: "".join(str((row * 7 + i * i * 3 + i) % 10) for i in range(count))
        make = {
            "sft": lambda row: {"text": digits(row, length - 1)},
            "rm": lambda row: {"chosen": digits(row, length - 1), "rejected": digits(row + 1, length - 1)},
            "dpo": lambda row: {"prompt": "1", "chosen": digits(row, length - 2), "rejected": digits(row + 1, length - 2)},
            "ppo": lambda row: {"prompt": digits(row, length // 2), "answer": "1"},
        }[stage]
        lines = (json.dumps(make(row)) + "\n" for row in range(rows))
        return self.write(f"{stage}.jsonl", "".join(lines))

    def stage(self, stage, shape, sizes, output, more):
        """Runs a stage for so many optimizer steps (PPO: iterations of one)."""
        length, batch, tokens = sizes
        section = "reward_model" if stage == "rm" else stage
        data = self.data(stage, length, self.steps * batch)
        settings = [f"output_dir={output}", f"model.path={self.model(shape)}", f"data.train={data}", "threads=2"]
        settings += [f"{section}.micro_batch_tokens={tokens}", "checkpoint.every=0"]
        if stage == "ppo":
            settings += [f"sampling.max_new_tokens={length // 2}", "sampling.ignore_eos=true", "ppo.epochs=1"]
            settings += [f"ppo.prompts_per_iteration={batch}", f"ppo.iterations={self.steps}"]
            if "reward=model" not in more:
                settings += ["reward={kind='exact_match', column='answer'}", "ppo.value_init=policy"]
        else:
            settings += [f"{section}.batch_size={batch}", f"{section}.max_steps={self.steps}"]
        if "reward=model" in more:
            settings.append(f"reward={{kind='model', path='{self.reward_model(shape)}'}}")
        if "model.reference=other" in more:
            # The same weights under another name.
            other = self.folder / f"other-{shape}"
            if not other.exists():
                shutil.copytree(self.model(shape), other)
            more = [f"model.reference={other}"]
        settings += [setting for setting in more if setting != "reward=model"]
        overrides = [part for setting in settings for part in ("--set", setting)]
        return self.run(stage, "--config", self.write("empty.toml", ""), "--quiet", *overrides)

    def measure(self, number, row):
        """Returns what was predicted and what was measured, in bytes."""
        stage, shape, length, batch, tokens, more = row
        output = self.folder / f"run-{number}"
        measured = self.stage(stage, shape, (length, batch, tokens), output, more)
        plan = json.loads((output / "plan.json").read_text())
        predicted = max(sum(phase["host"].values()) for phase in plan["phases"])
        keep = os.environ.get("KEEP_PLANS")
        if keep:
            shutil.copy(output / "plan.json", pathlib.Path(keep) / f"plan-{number}.json")
        shutil.rmtree(output)
        return predicted, measured


def toml(table):
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


def line(number, row, predicted, measured):
    stage, shape, length, batch, tokens, more = row
    options = ", ".join(more) or "f32"
    cells = [number, stage, shape, f"{batch} x {length}", tokens, options]
    cells += [f"{predicted / MIB:.0f}", f"{measured / MIB:.0f}", f"{predicted / measured:.3f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def render(rows):
    head = "| | stage | model | sequences | micro-batch tokens | set | predicted MiB | measured MiB | predicted / measured |"
    rule = "|--:|---|---|---|--:|---|--:|--:|--:|"
    return "\n".join([head, rule, *(line(*row) for row in rows)])


if __name__ == "__main__":
    main()
