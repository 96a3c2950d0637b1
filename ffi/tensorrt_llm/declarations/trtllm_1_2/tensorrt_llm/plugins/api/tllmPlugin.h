// What the shim uses of `tensorrt_llm/plugins/api/tllmPlugin.h`: see declarations/README.md.
#pragma once

extern "C" bool initTrtLlmPlugins(void* logger = nullptr, char const* libNamespace = "tensorrt_llm");
