// TensorRT-LLM about 0.19: the oldest that is supported.
#pragma once

#define RF_DECLARED declared_0_19
#define RF_DECLARED_VERSION "0.19.0"
#define RF_DECLARED_HAS_CACHE_SALT 0
#define RF_DECLARED_HAS_TRT_OVERLAP 0
#define RF_DECLARED_MAX_TOKENS SizeType32
