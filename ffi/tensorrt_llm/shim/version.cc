#include "shim/version.h"

namespace rollforge::shim {
namespace {

constexpr char kInstall[] = "install TensorRT-LLM 1.2.1 (0.19 to 1.2.1 work) and build again";

std::string refusal_of(std::string const& version)
{
    switch (support_of(parse_version(version.c_str()))) {
    case Support::kSupported:
    case Support::kCandidate:
        return "";
    case Support::kTooOld:
        return "TensorRT-LLM " + version + " is too old: before 0.19 its Executor is a closed library with another C++ ABI; "
               + kInstall;
    case Support::kRemoved:
        return "TensorRT-LLM " + version + " has no engine Executor any more: it was removed after 1.3.0rc21 (see "
               + "docs/source/legacy/tensorrt-backend-removal.md there); " + kInstall;
    case Support::kUnknown:
        break;
    }
    return "TensorRT-LLM \"" + version + "\" is no version that Rollforge knows; " + kInstall;
}

}

Verdict judge_tensorrt_llm(std::string const& library, std::string const& headers)
{
    Verdict verdict;
    verdict.refusal = refusal_of(library);
    if (!verdict.refusal.empty()) {
        return verdict;
    }
    if (library != headers) {
        verdict.refusal = "Rollforge was compiled against the headers of TensorRT-LLM " + headers + " but runs with the library "
                          + library + ": build it again with TRTLLM_INCLUDE_DIR of " + library;
    } else if (support_of(parse_version(library.c_str())) == Support::kCandidate) {
        verdict.warning = "TensorRT-LLM " + library + " is a release candidate, which is not supported; use 1.2.1 if you can";
    }
    return verdict;
}

Verdict judge_tensorrt(long library, long headers)
{
    Verdict verdict;
    if (library / 100 != headers / 100) {
        verdict.refusal = "Rollforge was compiled against the headers of TensorRT " + tensorrt_version_text(headers)
                          + " but runs with the library " + tensorrt_version_text(library)
                          + ": build it again with TENSORRT_INCLUDE_DIR of the library's version";
    }
    return verdict;
}

std::string tensorrt_version_text(long number)
{
    return std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." + std::to_string(number % 100);
}

}
