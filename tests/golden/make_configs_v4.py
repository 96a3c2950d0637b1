"""Writes models/*/config.v4.json: the same models as transformers 4 wrote them. Needs no torch.

Run by hand with transformers 4.51.3, after make_models.py.
"""

import pathlib
import tempfile

import transformers
from transformers import CONFIG_MAPPING

from model_settings import COMMON, MODELS

assert transformers.__version__ == "4.51.3", transformers.__version__

CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
HEADS = {"lm": "ForCausalLM", "score": "ForSequenceClassification"}

for name, (family, base, changes, dtype, head, _) in MODELS.items():
    labels = {"num_labels": 1} if head == "score" else {}
    config = CONFIG_MAPPING[family](torch_dtype=dtype, **(COMMON | base | changes), **labels)
    config.architectures = [CLASSES[family] + HEADS[head]]
    with tempfile.TemporaryDirectory() as directory:
        config.save_pretrained(directory)
        text = (pathlib.Path(directory) / "config.json").read_text()
    (pathlib.Path(__file__).parent / "models" / name / "config.v4.json").write_text(text)
