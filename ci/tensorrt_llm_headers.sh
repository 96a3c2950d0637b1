#!/usr/bin/env bash
# Compiles the shim over TensorRT-LLM, warnings as errors:
#   - against our own declarations, in each profile (needs nothing but a C++17 compiler, $CXX or c++);
#   - against the real headers, where TRTLLM_INCLUDE_DIR, TENSORRT_INCLUDE_DIR and CUDA_INCLUDE_DIR name their folders. The
#     versions and the SHA-256 of each header that was read are printed.
set -euo pipefail
cd "$(dirname "$0")/../ffi/tensorrt_llm"

compile() { # name, sources, flags...
  local name=$1 sources=$2
  shift 2
  # shellcheck disable=SC2086 # the sources are a list
  printf '%s\n' $sources | xargs -P "$(nproc)" -I{} \
    "${CXX:-c++}" -std=c++17 -fsyntax-only -Wall -Wextra -Werror -I. "$@" {}
  echo "compiled against $name"
}

shim=$(ls shim/*.cc)
stand_in=$(ls stand_in/*.cc)
for profile in trtllm_0_19 trtllm_1_2; do
  declared=(-Ideclarations/$profile -Ideclarations/tensorrt -Ideclarations/cuda)
  compile "declarations/$profile" "$shim $stand_in" "${declared[@]}"
done
# Before 10.7 a runtime has one loader less.
compile "declarations of TensorRT 10.6" "shim/capture.cc stand_in/nvinfer.cc" -DRF_DECLARED_TENSORRT_MINOR=6 "${declared[@]}"

if [ -z "${TRTLLM_INCLUDE_DIR:-}" ] || [ -z "${TENSORRT_INCLUDE_DIR:-}" ] || [ -z "${CUDA_INCLUDE_DIR:-}" ]; then
  echo "not compiled against real headers: set TRTLLM_INCLUDE_DIR, TENSORRT_INCLUDE_DIR and CUDA_INCLUDE_DIR"
  exit 0
fi

real=(-isystem "$TRTLLM_INCLUDE_DIR" -isystem "$TENSORRT_INCLUDE_DIR" -isystem "$CUDA_INCLUDE_DIR")
version=$(sed -n 's/.*kTensorRtLlmVersion *= *"\(.*\)".*/\1/p' "$TRTLLM_INCLUDE_DIR/tensorrt_llm/executor/version.h")
tensorrt=$(printf '#include <NvInferRuntime.h>\nversion NV_TENSORRT_MAJOR NV_TENSORRT_MINOR NV_TENSORRT_PATCH' |
  "${CXX:-c++}" -std=c++17 -E -P "${real[@]}" -x c++ - | tr '\n' ' ' | sed 's/.*version //; s/ *$//; s/ \+/./g')
compile "TensorRT-LLM $version, TensorRT $tensorrt" "$shim" "${real[@]}"
# shellcheck disable=SC2086 # the sources are a list
"${CXX:-c++}" -std=c++17 -M -I. "${real[@]}" $shim | tr -s ' \\' '\n' |
  grep -F -e "$TRTLLM_INCLUDE_DIR/" -e "$TENSORRT_INCLUDE_DIR/" | sort -u | xargs sha256sum
