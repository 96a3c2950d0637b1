#!/usr/bin/env python3
"""Fetches the pinned libtorch with pip and lays out the part of it that a machine without a GPU needs.

    python3 third_party/fetch_libtorch.py [DIR]        # DIR defaults to third_party/libtorch

Safe to call again: a complete folder of the same pins is left as it is.
"""

import os
import re

from wheels import Fetch

# What is taken out of which wheel. `libtorch_cpu` itself needs the two CUDA libraries; no other part of CUDA is taken.
WANTED = {
    "torch": re.compile(
        r"torch/(include/.*|lib/(libc10|libtorch_cpu)\.so|lib/libgomp\.so\.1)$"
        r"|torch-[^/]*\.dist-info/licenses/(LICENSE|NOTICE)$"
    ),
    "nvidia_cuda_runtime": re.compile(r".*/libcudart\.so\.13$"),
    "nvidia_cuda_cupti": re.compile(r".*/libcupti\.so\.13$"),
}


def place(wheel, entry):
    if not WANTED[wheel.split("-")[0]].match(entry):
        return None
    if entry.startswith("torch/include/"):
        return entry[len("torch/"):]
    if ".so" in entry:
        return "lib/" + os.path.basename(entry)
    return os.path.basename(entry)


def finish(folder):
    # The wheel's libtorch.so needs libtorch_cuda.so. It holds no code of its own: a linker script says what it means here.
    with open(os.path.join(folder, "lib", "libtorch.so"), "w") as script:
        script.write("INPUT(libtorch_cpu.so)\n")
    with open(os.path.join(folder, "build-version"), "w") as version:
        version.write("2.11.0\n")


if __name__ == "__main__":
    Fetch("libtorch", "2.11.0", 545, place,
          instead="install PyTorch 2.11 yourself and build with LIBTORCH_USE_PYTORCH=1", finish=finish).main(__file__)
