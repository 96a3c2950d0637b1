// The Executor behind the contract's handle.
//
// MPI: the Executor initialises it (THREAD_MULTIPLE) unless that was done before, and ends it at exit. One process per GPU needs
// nothing more here: each rank of `mpirun` creates an executor over its own engine file, the leader alone may enqueue.

#include "shim/capture.h"
#include "shim/guard.h"
#include "shim/objects.h"

#include "tensorrt_llm/plugins/api/tllmPlugin.h"

#include <cuda_runtime_api.h>

#include <mutex>

namespace rollforge::shim {
namespace {

namespace tle = ::tensorrt_llm::executor;

/// Takes the engine that `capture` saw: a decoder has exactly one.
void keep_engine(LiveExecutor& executor, Capture const& capture)
{
    if (capture.engines().size() != 1) {
        executor.engine_missing = "TensorRT-LLM loaded " + std::to_string(capture.engines().size())
                                  + " engines where one was expected, so none was captured for a refit in place";
        return;
    }
    executor.engine.engine = capture.engines().front();
    if (cudaGetDevice(&executor.engine.device) != cudaSuccess) {
        throw Failure(RF_INTERNAL, "CUDA does not say which device the engine was loaded on");
    }
}

/// Constructs an Executor by `make`, which is given its configuration.
template <typename Make>
rf_status create(rf_executor_config const* config, rf_executor** out, Make&& make)
{
    return guard([&] {
        rf_executor*& slot = require(out, "out");
        slot = nullptr;
        rf_executor_config const& settings = require(config, "config");
        require_versions();
        load_plugins();
        auto created = std::make_unique<LiveExecutor>();
        created->wants_engine = settings.capture_engine != 0;
        std::optional<Capture> capture;
        if (created->wants_engine) {
            capture.emplace();
        }
        created->executor = make(executor_config_of(settings));
        if (capture) {
            keep_engine(*created, *capture);
        }
        hand_out(std::move(created), slot);
    });
}

rf_status create_from_dir(char const* engine_dir, rf_executor_config const* config, rf_executor** out)
{
    return create(config, out, [&](tle::ExecutorConfig const& built) {
        return std::make_unique<tle::Executor>(
            std::filesystem::path(&require(engine_dir, "engine_dir")), tle::ModelType::kDECODER_ONLY, built);
    });
}

rf_status create_from_plan(
    std::uint8_t const* plan, std::uint64_t plan_len, char const* config_json, rf_executor_config const* config,
    rf_executor** out)
{
    return create(config, out, [&](tle::ExecutorConfig const& built) {
        return std::make_unique<tle::Executor>(
            tle::BufferView(&require(plan, "plan"), plan_len), std::string(&require(config_json, "config_json")),
            tle::ModelType::kDECODER_ONLY, built);
    });
}

/// `shutdown` waits for the requests in flight, so these are cancelled first. Nobody is left to hear of a failure.
void destroy(rf_executor* executor)
{
    std::unique_ptr<LiveExecutor> const target(behind(executor));
    if (!target) {
        return;
    }
    guard([&] {
        for (std::uint64_t const id : target->in_flight) {
            target->executor->cancelRequest(id);
        }
    });
    guard([&] { target->executor->shutdown(); });
}

rf_status can_enqueue(rf_executor* executor, std::int32_t* out)
{
    return guard([&] { require(out, "out") = require(behind(executor), "executor").executor->canEnqueueRequests() ? 1 : 0; });
}

rf_status enqueue(rf_executor* executor, rf_request const* request, std::uint64_t* id)
{
    return guard([&] {
        LiveExecutor& target = require(behind(executor), "executor");
        std::uint64_t& slot = require(id, "id");
        if (!target.executor->canEnqueueRequests()) {
            throw Failure(RF_INVALID_STATE, "only the leader may enqueue requests");
        }
        slot = target.executor->enqueueRequest(request_of(require(request, "request")));
        target.in_flight.insert(slot);
    });
}

rf_status await(rf_executor* executor, std::int64_t timeout_ms, rf_responses** out)
{
    return guard([&] {
        LiveExecutor& target = require(behind(executor), "executor");
        rf_responses*& slot = require(out, "out");
        slot = nullptr;
        if (timeout_ms < 0) {
            throw Failure(RF_INVALID_ARGUMENT, "timeout_ms must be 0 or more, got " + std::to_string(timeout_ms));
        }
        std::optional<std::chrono::milliseconds> const timeout{timeout_ms};
        auto responses = std::make_unique<Responses>();
        for (tle::Response const& response : target.executor->awaitResponses(timeout)) {
            responses->answers.push_back(answer_of(response));
            if (responses->answers.back().is_final) {
                target.in_flight.erase(responses->answers.back().request_id);
            }
        }
        hand_out(std::move(responses), slot);
    });
}

rf_status cancel(rf_executor* executor, std::uint64_t id)
{
    return guard([&] {
        LiveExecutor& target = require(behind(executor), "executor");
        if (target.in_flight.count(id) != 0) {
            target.executor->cancelRequest(id);
        }
    });
}

/// TensorRT-LLM hands each iteration out once; the newest stays the newest until there is another.
rf_status stats(rf_executor* executor, rf_buffer** out)
{
    return guard([&] {
        LiveExecutor& target = require(behind(executor), "executor");
        rf_buffer*& slot = require(out, "out");
        slot = nullptr;
        auto const iterations = target.executor->getLatestIterationStats();
        if (!iterations.empty()) {
            target.newest_stats = tle::JsonSerialization::toJsonStr(iterations.back());
        }
        auto buffer = std::make_unique<Buffer>();
        buffer->text = target.newest_stats;
        hand_out(std::move(buffer), slot);
    });
}

rf_status engine_of(rf_executor* executor, rf_engine** out)
{
    return guard([&] {
        LiveExecutor& target = require(behind(executor), "executor");
        rf_engine*& slot = require(out, "out");
        slot = nullptr;
        if (!target.wants_engine) {
            throw Failure(RF_INVALID_STATE, "the executor was created without capture_engine");
        }
        if (target.engine.engine == nullptr) {
            throw Failure(RF_UNSUPPORTED, target.engine_missing);
        }
        slot = reinterpret_cast<rf_engine*>(&target.engine);
    });
}

}

void load_plugins()
{
    static std::once_flag once;
    std::call_once(once, [] {
        if (!initTrtLlmPlugins()) {
            throw Failure(RF_INTERNAL, "TensorRT-LLM could not register its plugins with TensorRT");
        }
    });
}

void add_executor(rf_api& api)
{
    api.executor_create = create_from_dir;
    api.executor_create_from_plan = create_from_plan;
    api.executor_destroy = destroy;
    api.executor_can_enqueue = can_enqueue;
    api.executor_enqueue = enqueue;
    api.executor_await = await;
    api.executor_cancel = cancel;
    api.executor_stats = stats;
    api.executor_engine = engine_of;
}

}
