// What lies behind the handles of the contract, and the parts of the table that work on them.
#pragma once

#include "contract.h"

#include "shim/version.h"

#include "tensorrt_llm/executor/executor.h"
#include "tensorrt_llm/executor/version.h"

#include <NvInferRuntime.h>

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace rollforge::shim {

static_assert(
    is_usable(parse_version(::tensorrt_llm::executor::kTensorRtLlmVersion)),
    "these headers of TensorRT-LLM are not supported: install TensorRT-LLM 1.2.1 (0.19 to 1.2.1 work)");

/// An engine: borrowed from an executor, or loaded and owned.
struct Engine {
    nvinfer1::ICudaEngine* engine = nullptr;
    /// CUDA device of the thread that loaded it.
    int device = 0;
    /// Only of a loaded engine; it goes before its runtime.
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> owned;
};

struct LiveExecutor {
    std::unique_ptr<tensorrt_llm::executor::Executor> executor;
    /// Requests whose final response has not come.
    std::unordered_set<std::uint64_t> in_flight;
    /// Whether to capture the engine; the engine, or why there is none.
    bool wants_engine = false;
    Engine engine;
    std::string engine_missing;
    std::string newest_stats;
};

/// One response, copied out of TensorRT-LLM's.
struct Answer {
    std::uint64_t request_id = 0;
    std::int32_t sequence_index = 0;
    std::vector<std::int32_t> tokens;
    std::vector<float> log_probs;
    std::int32_t finish_reason = RF_NOT_FINISHED;
    bool is_sequence_final = true;
    bool is_final = true;
    std::optional<std::string> error;
};

struct Responses {
    std::vector<Answer> answers;
};

/// A refittable tensor: `dtype` as in the contract.
struct Refittable {
    std::string name;
    std::int32_t dtype = 0;
    std::int64_t count = 0;
};

struct Refitter {
    std::unique_ptr<nvinfer1::IRefitter> refitter;
    int device = 0;
    std::vector<Refittable> weights;
    std::unordered_map<std::string, std::size_t> by_name;
    /// Whether any tensor was bound.
    bool is_bound = false;
};

/// Bytes that go out: text, or a plan that stays in TensorRT's memory.
struct Buffer {
    std::string text;
    std::unique_ptr<nvinfer1::IHostMemory> plan;
};

/// Which class lies behind a handle of the contract. The handles stay incomplete types here: the double has classes of its own
/// behind the same names, in the same program.
template <typename Handle>
struct Behind;
template <>
struct Behind<rf_engine> {
    using Object = Engine;
};
template <>
struct Behind<rf_executor> {
    using Object = LiveExecutor;
};
template <>
struct Behind<rf_responses> {
    using Object = Responses;
};
template <>
struct Behind<rf_refitter> {
    using Object = Refitter;
};
template <>
struct Behind<rf_buffer> {
    using Object = Buffer;
};

/// Returns the object behind a handle.
template <typename Handle>
typename Behind<Handle>::Object* behind(Handle* handle)
{
    return reinterpret_cast<typename Behind<Handle>::Object*>(handle);
}
template <typename Handle>
typename Behind<Handle>::Object const* behind(Handle const* handle)
{
    return reinterpret_cast<typename Behind<Handle>::Object const*>(handle);
}

/// Puts an object behind a new handle, which owns it.
template <typename Handle, typename Object = typename Behind<Handle>::Object>
void hand_out(std::unique_ptr<Object> object, Handle*& out)
{
    out = reinterpret_cast<Handle*>(object.release());
}

/// Throws RF_VERSION where the versions do not go together: nothing else of the libraries may be called then.
void require_versions();

/// Registers TensorRT-LLM's plugins, once.
void load_plugins();

tensorrt_llm::executor::ExecutorConfig executor_config_of(rf_executor_config const& config);
tensorrt_llm::executor::Request request_of(rf_request const& request);
Answer answer_of(tensorrt_llm::executor::Response const& response);

void add_description(rf_api& api);
void add_executor(rf_api& api);
void add_responses(rf_api& api);
void add_engine(rf_api& api);
void add_refit(rf_api& api);
void add_buffer(rf_api& api);

}
