"""Builds TensorRT engines that can be refitted, from a TensorRT-LLM checkpoint.

`trtllm-build` always builds without refit, so `rollforge engine build` runs this file, in the Python that has
TensorRT-LLM (made for 0.19 to 1.2.1):

    python build_engine.py probe
    python build_engine.py build --checkpoint DIR --output DIR --max-batch-size 64 ...

Why it failed is the last line of the standard error, after "rollforge: ".
"""

import argparse
import copy
import importlib.metadata
import importlib.util
import json
import pathlib
import platform
import re
import sys
import traceback


class Refused(Exception):
    """Something a person can put right; the message says how."""


def installed_version():
    """Returns TensorRT-LLM's version without importing it, which takes long and prints."""
    try:
        return importlib.metadata.version("tensorrt_llm")
    except importlib.metadata.PackageNotFoundError:
        pass
    spec = importlib.util.find_spec("tensorrt_llm")
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or []:
        file = pathlib.Path(folder, "version.py")
        found = re.search(r"__version__\s*=\s*[\"']([^\"']+)", file.read_text()) if file.is_file() else None
        if found:
            return found.group(1)
    return "unknown"


def tensorrt_version():
    for name in ("tensorrt", "tensorrt_cu13", "tensorrt_cu12"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return None


def probe(_options):
    spec = importlib.util.find_spec("tensorrt_llm")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = {
        "python": platform.python_version(),
        "tensorrt_llm": installed_version() if spec else None,
        "location": folders[0] if folders else None,
        "tensorrt": tensorrt_version(),
    }
    print(json.dumps(found))


def builder():
    """Imports what builds engines, from where every release from 0.19 on has it."""
    if importlib.util.find_spec("tensorrt_llm") is None:
        raise Refused(f"{sys.executable} has no module tensorrt_llm: install tensorrt-llm 1.2.1, or name another Python")
    try:
        from tensorrt_llm.builder import BuildConfig, build
        from tensorrt_llm.models import MODEL_MAP, PretrainedConfig
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("tensorrt_llm."):
            raise
        raise Refused(
            f"TensorRT-LLM {installed_version()} builds no engines ({error}): that was removed in 1.3, install 1.2.1"
        ) from error
    return BuildConfig, build, MODEL_MAP, PretrainedConfig


def build_config(BuildConfig, options, timing_cache):
    config = BuildConfig(
        max_batch_size=options.max_batch_size,
        max_input_len=options.max_input_len,
        max_seq_len=options.max_seq_len,
        max_num_tokens=options.max_num_tokens,
        max_beam_width=1,
        strongly_typed=True,
        use_refit=True,
        # One file for all ranks: tactics that the first has timed need no timing for the others.
        input_timing_cache=str(timing_cache) if timing_cache.exists() else None,
        output_timing_cache=str(timing_cache),
    )
    plugins = {
        "gpt_attention_plugin": "auto",
        "gemm_plugin": "auto",
        "remove_input_padding": True,
        "paged_kv_cache": True,
        "use_paged_context_fmha": True,
        # Decides whether up and gate are one tensor, so the names a refit has to know.
        "use_fused_mlp": options.fused_mlp,
        # Both change which tensors there are, or take them out of a refit's reach.
        "reduce_fusion": False,
        "manage_weights": False,
    }
    for name, value in plugins.items():
        if hasattr(config.plugin_config, name):
            setattr(config.plugin_config, name, value)
        else:
            print(f"this release has no plugin option {name}", flush=True)
    return config


def own_values(model):
    """Returns what a model brings along without any checkpoint, such as rotary tables. In the engine these have names
    too, and a refit that does not set them is incomplete."""
    parameters = model.named_parameters()
    return {name: parameter.raw_value.copy() for name, parameter in parameters if parameter.is_inited()}


def refittable_names(plan):
    import tensorrt
    from tensorrt_llm.logger import logger

    runtime = tensorrt.Runtime(logger.trt_logger)
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise Refused(f"TensorRT cannot load {plan}, which it just wrote")
    if not engine.refittable:
        raise Refused(f"{plan} cannot be refitted although BuildConfig(use_refit=True) was asked for")
    return set(tensorrt.Refitter(engine, logger.trt_logger).get_all_weights())


def safetensors_dtype(values):
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "int64": "I64", "int8": "I8"}
    # numpy has no bfloat16: TensorRT-LLM stands in two raw bytes for it.
    name = "bfloat16" if values.dtype.kind == "V" and values.dtype.itemsize == 2 else values.dtype.name
    if name not in names:
        raise Refused(f"fixed values of type {values.dtype} are not known")
    return names[name]


def checkpoint_names(file):
    with open(file, "rb") as weights:
        return set(json.loads(weights.read(int.from_bytes(weights.read(8), "little"))))


def write_safetensors(file, tensors):
    header, start = {}, 0
    for name, values in sorted(tensors.items()):
        offsets = [start, start + values.nbytes]
        header[name] = {"dtype": safetensors_dtype(values), "shape": list(values.shape), "data_offsets": offsets}
        start = offsets[1]
    text = json.dumps(header).encode()
    with open(file, "wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for _, values in sorted(tensors.items()):
            out.write(values.tobytes())


def build_rank(options, rank, api):
    BuildConfig, build, MODEL_MAP, PretrainedConfig = api
    config = PretrainedConfig.from_json_file(str(options.checkpoint / "config.json"))
    if config.architecture not in MODEL_MAP:
        raise Refused(f"TensorRT-LLM {installed_version()} does not know the architecture {config.architecture}")
    config.set_rank(rank)
    model_class = MODEL_MAP[config.architecture]
    own = own_values(model_class.from_config(copy.deepcopy(config)))
    model = model_class.from_checkpoint(str(options.checkpoint), config=config)
    timing_cache = options.output / "timing.cache"
    engine = build(model, build_config(BuildConfig, options, timing_cache))
    if engine is None:
        raise Refused(f"TensorRT built no engine for rank {rank}")
    engine.save(str(options.output))
    del engine, model
    names = refittable_names(options.output / f"rank{rank}.engine")
    fixed = (names & own.keys()) - checkpoint_names(options.checkpoint / f"rank{rank}.safetensors")
    print(f"rank {rank}: {len(names)} refittable tensors, {len(fixed)} of them fixed", flush=True)
    return {name: own[name] for name in fixed}


def build_all(options):
    api = builder()
    mapping = json.loads((options.checkpoint / "config.json").read_text())["mapping"]
    options.output.mkdir(parents=True, exist_ok=True)
    fixed = {}
    for rank in range(mapping["world_size"]):
        fixed.update(build_rank(options, rank, api))
    write_safetensors(options.output / "fixed_weights.safetensors", fixed)
    (options.output / "timing.cache").unlink(missing_ok=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True)
    actions.add_parser("probe", help="say which TensorRT-LLM this Python has").set_defaults(action=probe)
    command = actions.add_parser("build", help="build the engines of a checkpoint, one for each rank")
    command.set_defaults(action=build_all)
    command.add_argument("--checkpoint", type=pathlib.Path, required=True)
    command.add_argument("--output", type=pathlib.Path, required=True)
    for name in ("--max-batch-size", "--max-input-len", "--max-seq-len", "--max-num-tokens"):
        command.add_argument(name, type=int, required=True)
    command.add_argument("--fused-mlp", action="store_true")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        options.action(options)
    except BaseException as error:  # Also SystemExit, which libraries raise: nothing may end without a sentence.
        if not isinstance(error, Refused):
            traceback.print_exc()
        kind = "" if isinstance(error, Refused) else f"{type(error).__name__}: "
        sentence = " ".join(str(error).split())
        sys.stdout.flush()
        print(f"rollforge: {kind}{sentence}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
