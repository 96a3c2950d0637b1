"""Stands in for tensorrt_llm.models in the tests of build_engine.py. Needs no numpy."""

import json
import struct


class DataType:
    def __init__(self, name, kind, itemsize):
        self.name, self.kind, self.itemsize = name, kind, itemsize


class Values:
    """As much of a numpy array as the script uses."""

    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data, self.nbytes = dtype, shape, data, len(data)

    def copy(self):
        return self

    def tobytes(self):
        return self.data


class Parameter:
    def __init__(self, raw_value):
        self.raw_value = raw_value

    def is_inited(self):
        return self.raw_value is not None


class PretrainedConfig:
    @staticmethod
    def from_json_file(file):
        config = PretrainedConfig()
        with open(file) as text:
            config.keys = json.load(text)
        config.architecture = config.keys["architecture"]
        return config

    def set_rank(self, rank):
        self.rank = rank


class LLaMAForCausalLM:
    def __init__(self, config):
        self.config = config

    @classmethod
    def from_config(cls, config):
        return cls(config)

    @classmethod
    def from_checkpoint(cls, _folder, config):
        return cls(config)

    def named_parameters(self):
        bf16 = DataType("void16", "V", 2)
        yield "transformer.ln_f.weight", Parameter(Values(bf16, (4,), bytes(8)))
        yield "rotary_inv_freq", Parameter(Values(DataType("float32", "f", 4), (1, 2), struct.pack("<2f", 1, 0.5)))
        yield "embed_positions", Parameter(Values(bf16, (1,), bytes(2)))


MODEL_MAP = {"LlamaForCausalLM": LLaMAForCausalLM}
