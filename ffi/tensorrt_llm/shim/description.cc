// What this build is, and whether its versions go together.

#include "shim/capture.h"
#include "shim/detect.h"
#include "shim/guard.h"
#include "shim/objects.h"

namespace rollforge::shim {
namespace {

namespace tle = ::tensorrt_llm::executor;

/// Strings that a description points at; made once.
struct Facts {
    std::string trtllm = tle::version();
    std::string trtllm_headers = tle::kTensorRtLlmVersion;
    std::string tensorrt = tensorrt_version_text(getInferLibVersion());
    std::string tensorrt_headers = tensorrt_version_text(NV_TENSORRT_VERSION);
    Verdict verdict = judge();

    Verdict judge() const
    {
        Verdict verdict = judge_tensorrt_llm(trtllm, trtllm_headers);
        if (verdict.refusal.empty()) {
            verdict.refusal = judge_tensorrt(getInferLibVersion(), NV_TENSORRT_VERSION).refusal;
        }
        return verdict;
    }
};

Facts const& facts()
{
    static Facts const known;
    return known;
}

std::uint64_t capabilities()
{
    std::uint64_t found = detected_capabilities() | RF_CAN_REBUILD | RF_CAN_REFIT_FROM_HOST;
    found |= capture_is_linked() ? RF_CAN_REFIT_IN_PLACE : 0;
#ifndef RF_DECLARED
    found |= RF_CAN_REFIT_FROM_DEVICE;
#endif
    return found;
}

rf_status describe(rf_description* out)
{
    return guard([&] {
        rf_description& description = require(out, "out");
        description = {};
#ifdef RF_DECLARED
        description.name = "stand-in for tensorrt-llm (a double, for tests)";
        description.is_double = 1;
#else
        description.name = "tensorrt-llm";
#endif
        description.trtllm_version = facts().trtllm.c_str();
        description.trtllm_headers = facts().trtllm_headers.c_str();
        description.tensorrt_version = facts().tensorrt.c_str();
        description.tensorrt_headers = facts().tensorrt_headers.c_str();
        description.warning = facts().verdict.warning.c_str();
        description.capabilities = capabilities();
        require_versions();
    });
}

}

void require_versions()
{
    if (!facts().verdict.refusal.empty()) {
        throw Failure(RF_VERSION, facts().verdict.refusal);
    }
}

void add_description(rf_api& api)
{
    api.describe = describe;
}

}
