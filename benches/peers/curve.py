"""TRL's PPO on what `rollforge ppo` was run on: the same models, prompts and settings, so that rewards lie side by side.

    target/peers/venv/bin/python -P benches/peers/curve.py RUN... --json benches/curves.json

RUN is a directory that `rollforge ppo` wrote, its reward a model. For each, TRL does what its `config.resolved.toml` asks for, and
the rewards of its iterations are printed beside those in the run's `metrics.jsonl`, as means over all runs.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import tomllib

from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
    set_seed,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

MICRO_BATCH = 32
METRICS = {"reward": "objective/rlhf_reward", "kl": "objective/kl"}
ROWS = 5


class Curve(TrainerCallback):
    """Keeps what TRL says of each iteration."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, _args: object, _state: object, _control: object, logs: dict[str, float], **_: object) -> None:
        if METRICS["reward"] in logs:
            self.rows.append({name: float(logs[key]) for name, key in METRICS.items()})
            print(f"iteration {len(self.rows)}: {self.rows[-1]}", file=sys.stderr, flush=True)


def latest(run: str, model: str) -> pathlib.Path:
    """The model directory that a run left last."""
    return pathlib.Path(run) / (pathlib.Path(run) / "LATEST").read_text().strip() / model


def refuse_what_trl_cannot(config: dict) -> None:
    if "ppo" not in config:
        sys.exit(f"{config['output_dir']} is not a run of PPO")
    if config["ppo"]["prompts_per_iteration"] % MICRO_BATCH != 0:
        sys.exit(f"ppo.prompts_per_iteration must be a multiple of {MICRO_BATCH}")
    # TRL counts micro-batches through all mini-batches of a pass, and so takes one step for each pass.
    wanted = {
        ("ppo", "mini_batches"): 1,
        ("ppo", "samples_per_prompt"): 1,
        ("ppo", "value_init"): "reward_model",
        ("ppo", "kl_in"): "reward",
        ("reward", "kind"): "model",
        ("schedule", "kind"): "linear",
        ("sampling", "temperature"): 1.0,
    }
    for (section, key), value in wanted.items():
        if config[section][key] != value:
            sys.exit(f"{section}.{key} must be {value}, got {config[section][key]}")


def trl(run: pathlib.Path) -> list[dict[str, float]]:
    config = tomllib.loads((run / "config.resolved.toml").read_text())
    refuse_what_trl_cannot(config)
    ppo, optimizer = config["ppo"], config["optimizer"]
    set_seed(config["seed"])
    sft, rm = latest(config["model"]["path"], "policy"), latest(config["reward"]["path"], "reward_model")
    tokenizer = AutoTokenizer.from_pretrained(sft, padding_side="left")
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    lines = pathlib.Path(config["data"]["train"][0]).read_text().splitlines()
    rows = [tokenizer(json.loads(line)["prompt"])["input_ids"] for line in lines]
    policy, reference = (AutoModelForCausalLM.from_pretrained(sft) for _ in range(2))
    for model in (policy, reference):
        model.resize_token_embeddings(len(tokenizer))
    reward, value = (AutoModelForSequenceClassification.from_pretrained(rm, num_labels=1) for _ in range(2))
    for model in (reward, value):
        model.resize_token_embeddings(len(tokenizer))
        model.config.pad_token_id = tokenizer.pad_token_id
    curve, batch = Curve(), ppo["prompts_per_iteration"]
    with tempfile.TemporaryDirectory() as folder:
        arguments = PPOConfig(
            output_dir=folder,
            seed=config["seed"],
            per_device_train_batch_size=MICRO_BATCH,
            gradient_accumulation_steps=batch // MICRO_BATCH,
            num_mini_batches=1,
            num_ppo_epochs=ppo["epochs"],
            total_episodes=ppo["iterations"] * batch,
            local_rollout_forward_batch_size=batch,
            response_length=config["sampling"]["max_new_tokens"],
            stop_token="eos",
            missing_eos_penalty=ppo["missing_eos_penalty"],
            temperature=1.0,
            kl_coef=ppo["kl_coef"],
            kl_estimator=ppo["kl_estimator"],
            vf_coef=ppo["value_coef"],
            cliprange=ppo["clip_range"],
            cliprange_value=ppo["value_clip_range"],
            gamma=ppo["gamma"],
            lam=ppo["gae_lambda"],
            whiten_rewards=ppo["whiten_rewards"],
            learning_rate=optimizer["lr"],
            adam_epsilon=optimizer["eps"],
            lr_scheduler_type="polynomial",
            lr_scheduler_kwargs={"power": 1.0, "lr_end": optimizer["lr"] * config["schedule"]["min_lr_ratio"]},
            num_sample_generations=0,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
        )
        trainer = PPOTrainer(
            args=arguments,
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": rows}),
            eval_dataset=Dataset.from_dict({"input_ids": rows[:MICRO_BATCH]}),
            callbacks=[curve],
        )
        trainer.train()
    return curve.rows


def rollforge(run: pathlib.Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{name: json.loads(line)[key] for name, key in METRICS.items()} for line in lines]


def table(curves: dict[str, list[list[dict[str, float]]]]) -> str:
    """Means over runs and iterations, with the standard deviation between runs."""
    lines = [
        f"| iterations | {' | '.join(f'{who}, {what}' for what in METRICS for who in curves)} |",
        "|---|" + "---:|" * len(curves) * len(METRICS),
    ]
    length = min(len(rows) for runs in curves.values() for rows in runs)
    step = length // ROWS
    for start in range(0, step * ROWS, step):
        cells = []
        for what in METRICS:
            for runs in curves.values():
                means = [statistics.mean(row[what] for row in rows[start : start + step]) for rows in runs]
                spread = f" ± {statistics.stdev(means):.2f}" if len(means) > 1 else ""
                cells.append(f"{statistics.mean(means):.2f}{spread}")
        lines.append(f"| {start + 1} to {start + step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN")
    parser.add_argument("--json", type=pathlib.Path)
    asked = parser.parse_args()
    for run in asked.runs:
        for name in ("config.resolved.toml", "metrics.jsonl"):
            if not (run / name).is_file():
                sys.exit(f"{run} is not what `rollforge ppo` writes: it has no {name}")
    curves = {
        "rollforge": [rollforge(run) for run in asked.runs],
        "trl": [trl(run) for run in asked.runs],
    }
    print(table(curves))
    if asked.json:
        asked.json.write_text(json.dumps(curves) + "\n")


if __name__ == "__main__":
    main()
