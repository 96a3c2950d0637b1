// Which TensorRT-LLM the declarations stand for.
#pragma once

namespace tensorrt_llm::executor {
inline namespace RF_DECLARED {

/// Of the headers.
static auto constexpr kTensorRtLlmVersion = RF_DECLARED_VERSION;

}
}
