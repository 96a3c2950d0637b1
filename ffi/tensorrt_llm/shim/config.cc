// The contract's settings in TensorRT-LLM's classes. Setters only: the order of constructor arguments changes from version to
// version.

#include "shim/detect.h"
#include "shim/guard.h"
#include "shim/objects.h"

#include <limits>

namespace rollforge::shim {
namespace {

namespace tle = ::tensorrt_llm::executor;

tle::KvCacheConfig kv_cache_of(rf_executor_config const& config)
{
    tle::KvCacheConfig kv;
    // The default is not the same in all versions.
    kv.setEnableBlockReuse(config.block_reuse != 0);
    if (config.kv_max_tokens > 0) {
        if (config.kv_max_tokens > std::numeric_limits<std::int32_t>::max()) {
            throw Failure(RF_INVALID_ARGUMENT, "kv_max_tokens is at most 2147483647, got " + std::to_string(config.kv_max_tokens));
        }
        kv.setMaxTokens(static_cast<std::int32_t>(config.kv_max_tokens));
    }
    if (config.kv_free_fraction > 0) {
        kv.setFreeGpuMemoryFraction(config.kv_free_fraction);
    }
    return kv;
}

std::vector<std::int32_t> list_of(std::int32_t const* values, std::uint64_t length, char const* name)
{
    if (length == 0) {
        return {};
    }
    return {&require(values, name), values + length};
}

}

tle::ExecutorConfig executor_config_of(rf_executor_config const& config)
{
    tle::ExecutorConfig built;
    if (config.max_batch_size > 0) {
        built.setMaxBatchSize(config.max_batch_size);
    }
    if (config.max_num_tokens > 0) {
        built.setMaxNumTokens(config.max_num_tokens);
    }
    if (config.max_queue_size > 0) {
        built.setMaxQueueSize(config.max_queue_size);
    }
    built.setKvCacheConfig(kv_cache_of(config));
    built.setEnableChunkedContext(config.chunked_context != 0);
    built.setIterStatsMaxIterations(config.iteration_stats);
    // Concerns sums over beams; we sum ourselves.
    built.setNormalizeLogProbs(false);
    disable_overlap(built, 0);
    auto const devices = list_of(config.device_ids, config.device_ids_len, "device_ids");
    auto const participants = list_of(config.participant_ids, config.participant_ids_len, "participant_ids");
    if (!devices.empty() || !participants.empty()) {
        tle::ParallelConfig parallel;
        if (!devices.empty()) {
            parallel.setDeviceIds(devices);
        }
        if (!participants.empty()) {
            parallel.setParticipantIds(participants);
        }
        built.setParallelConfig(parallel);
    }
    return built;
}

}
