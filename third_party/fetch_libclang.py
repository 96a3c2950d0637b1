#!/usr/bin/env python3
"""Fetches the pinned libclang with pip: bindgen reads the contract with TensorRT-LLM with it.

    python3 third_party/fetch_libclang.py [DIR]        # DIR defaults to third_party/libclang

Safe to call again: a complete folder of the same pins is left as it is.
"""

import os

from wheels import Fetch

WANTED = ("libclang.so", "LICENSE.TXT")


def place(wheel, entry):
    name = os.path.basename(entry)
    return name if name in WANTED else None


if __name__ == "__main__":
    Fetch("libclang", "18.1.1", 24, place,
          instead="install clang's library yourself (Debian: apt-get install libclang-dev)").main(__file__)
