"""Writes adapters/: LoRA adapters of the models in models/, as PEFT saves them, and what PEFT computes with them.

Run by hand with the versions below; the results are committed. The format is in README.md.
"""

import pathlib
import shutil

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

assert torch.__version__.split("+")[0] == "2.11.0", torch.__version__
assert transformers.__version__ == "5.23.0", transformers.__version__
assert peft.__version__ == "0.21.2", peft.__version__

HERE = pathlib.Path(__file__).parent
ADAPTERS = {
    "llama-all-linear": ("llama", dict(r=3, lora_alpha=5, target_modules="all-linear", lora_dropout=0.1)),
    "qwen2-q-v-down": ("qwen2", dict(r=4, lora_alpha=6, target_modules=["v_proj", "q_proj", "down_proj"], use_rslora=True)),
    "llama-score-k-o-up": ("llama-score", dict(r=2, lora_alpha=4, target_modules=["k_proj", "o_proj", "up_proj"])),
}


@torch.no_grad()
def randomise(model, generator):
    """B of a new adapter is zero; here neither it nor a saved head is."""
    for name, weight in sorted(model.named_parameters()):
        if weight.requires_grad:
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    for number, (name, (base, options)) in enumerate(ADAPTERS.items()):
        is_score = base.endswith("-score")
        auto = AutoModelForSequenceClassification if is_score else AutoModelForCausalLM
        task = "SEQ_CLS" if is_score else "CAUSAL_LM"
        model = auto.from_pretrained(HERE / "models" / base, attn_implementation="eager", dtype=torch.float32)
        model = get_peft_model(model, LoraConfig(task_type=task, **options)).eval()
        generator = torch.Generator().manual_seed(100 + number)
        randomise(model, generator)
        tokens = torch.randint(3, model.config.vocab_size, (21,), generator=generator)
        if is_score:
            inner = model.base_model.model
            outputs = inner.score(inner.model(tokens[None]).last_hidden_state)[0, :, 0]
        else:
            outputs = model(tokens[None]).logits[0]
        with model.disable_adapter():
            assert is_score or not torch.equal(model(tokens[None]).logits[0], outputs)
        directory = HERE / "adapters" / name
        shutil.rmtree(directory, ignore_errors=True)
        # Else the path of this machine is written down.
        model.peft_config["default"].base_model_name_or_path = base
        model.save_pretrained(directory)
        (directory / "README.md").unlink(missing_ok=True)
        expected = {"tokens": tokens, "scores" if is_score else "logits": outputs.contiguous()}
        save_file(expected, directory / "expected.safetensors")
        print(name, sum(file.stat().st_size for file in directory.iterdir()))


main()
