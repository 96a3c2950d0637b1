// Members that only some versions have, found by the compiler instead of by version numbers.
//
// Each feature is a set of overloads. The one that takes `int` exists only where the member does, and is preferred for the
// argument 0; the one that takes `long` (or anything) answers elsewhere. They say whether the member is there.
#pragma once

#include "contract.h"

#include "tensorrt_llm/executor/executor.h"

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>

namespace rollforge::shim {

/// RF_CAN_CACHE_SALT: a number from about 1.1 on, a text in candidates of 1.3.
template <typename Request>
auto set_cache_salt(Request& request, std::uint64_t salt, int) -> decltype(request.setCacheSaltID(salt), bool())
{
    request.setCacheSaltID(salt);
    return true;
}
template <typename Request>
auto set_cache_salt(Request& request, std::uint64_t salt, long)
    -> decltype(request.setCacheSalt(std::to_string(salt)), bool())
{
    request.setCacheSalt(std::to_string(salt));
    return true;
}
template <typename Request>
bool set_cache_salt(Request&, std::uint64_t, ...)
{
    return false;
}

/// RF_CAN_ALLOTTED_TIME: 0.16 and later.
template <typename Request>
auto set_allotted_time(Request& request, std::chrono::milliseconds time, int)
    -> decltype(request.setAllottedTimeMs(time), bool())
{
    request.setAllottedTimeMs(time);
    return true;
}
template <typename Request>
bool set_allotted_time(Request&, std::chrono::milliseconds, long)
{
    return false;
}

/// RF_CAN_RETURN_SEQUENCES: 0.16 and later. (Until about 1.0 `Request` has a setter of the same name, which is deprecated.)
template <typename Sampling>
auto set_num_return_sequences(Sampling& sampling, std::int32_t count, int)
    -> decltype(sampling.setNumReturnSequences(count), bool())
{
    sampling.setNumReturnSequences(count);
    return true;
}
template <typename Sampling>
bool set_num_return_sequences(Sampling&, std::int32_t, long)
{
    return false;
}

/// RF_CAN_MIN_P.
template <typename Sampling>
auto set_min_p(Sampling& sampling, float min_p, int) -> decltype(sampling.setMinP(min_p), bool())
{
    sampling.setMinP(min_p);
    return true;
}
template <typename Sampling>
bool set_min_p(Sampling&, float, long)
{
    return false;
}

/// Overlap of iterations: work may be in flight after the last response, so a refit needs it off.
template <typename Config>
auto disable_overlap(Config& config, int) -> decltype(config.setEnableTrtOverlap(false), void())
{
    config.setEnableTrtOverlap(false);
}
template <typename Config>
void disable_overlap(Config&, long)
{
}

/// RF_CAN_REPORT_CANCEL: 0.16 and later.
template <typename Reason>
constexpr auto reports_cancel(int) -> decltype(Reason::kTIMED_OUT, Reason::kCANCELLED, bool())
{
    return true;
}
template <typename Reason>
constexpr bool reports_cancel(long)
{
    return false;
}

/// TensorRT 10.14 and later: a stripped engine stays refittable when it is serialised with its weights.
template <typename Flag, typename Config>
auto keep_refittable(Config& config, int) -> decltype(config.setFlag(Flag::kINCLUDE_REFIT), void())
{
    config.setFlag(Flag::kINCLUDE_REFIT);
}
template <typename Flag, typename Config>
void keep_refittable(Config&, long)
{
}

/// The capabilities that follow from the headers.
inline std::uint64_t detected_capabilities()
{
    namespace tle = ::tensorrt_llm::executor;
    tle::Request request({0}, 1);
    tle::SamplingConfig sampling;
    std::uint64_t found = 0;
    found |= set_cache_salt(request, 1, 0) ? RF_CAN_CACHE_SALT : 0;
    found |= set_allotted_time(request, std::chrono::milliseconds(1), 0) ? RF_CAN_ALLOTTED_TIME : 0;
    found |= set_num_return_sequences(sampling, 2, 0) ? RF_CAN_RETURN_SEQUENCES : 0;
    found |= set_min_p(sampling, 0.5F, 0) ? RF_CAN_MIN_P : 0;
    found |= reports_cancel<tle::FinishReason>(0) ? RF_CAN_REPORT_CANCEL : 0;
    return found;
}

}
