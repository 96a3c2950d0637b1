"""Stands in for tensorrt_llm.builder in the tests of build_engine.py: writes down what it is asked for.

Files beside the package make it misbehave: `explode` fails, `plain` builds without refit.
"""

import json
import pathlib

SWITCHES = pathlib.Path(__file__).parent.parent


class PluginConfig:
    gpt_attention_plugin = "auto"
    gemm_plugin = None
    remove_input_padding = False
    paged_kv_cache = None
    use_paged_context_fmha = False
    use_fused_mlp = True
    reduce_fusion = True
    manage_weights = True


class BuildConfig:
    def __init__(self, **options):
        self.options = options
        self.plugin_config = PluginConfig()


class Engine:
    def __init__(self, model, plan):
        self.model, self.plan = model, plan

    def save(self, folder):
        pathlib.Path(folder, f"rank{self.model.config.rank}.engine").write_text(json.dumps(self.plan))
        config = {"version": "1.2.1", "pretrained_config": self.model.config.keys, "build_config": self.plan["asked"]}
        pathlib.Path(folder, "config.json").write_text(json.dumps(config))


def build(model, config):
    if (SWITCHES / "explode").exists():
        raise RuntimeError("out of memory\nat layer 3")
    pathlib.Path(config.options["output_timing_cache"]).write_text("timed")
    asked = dict(config.options, rank=model.config.rank, plugin_config=vars(config.plugin_config))
    names = [name for name, _ in model.named_parameters()] + ["transformer.layers.0.mlp.fused_fc.weight"]
    return Engine(model, {"asked": asked, "names": names, "refittable": not (SWITCHES / "plain").exists()})
