// TensorRT-LLM about 1.2: the newest that is supported.
#pragma once

#define RF_DECLARED declared_1_2
#define RF_DECLARED_VERSION "1.2.1"
#define RF_DECLARED_HAS_CACHE_SALT 1
#define RF_DECLARED_HAS_TRT_OVERLAP 1
#define RF_DECLARED_MAX_TOKENS std::optional<SizeType32>
