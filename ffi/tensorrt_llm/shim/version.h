// Which versions of TensorRT-LLM and TensorRT the shim works with. All of it can be asked while compiling.
#pragma once

#include <limits>
#include <string>

namespace rollforge::shim {

/// A version as TensorRT-LLM writes it: "1.2.1", "1.3.0rc15"; what follows (".post1", "+cu13") is left out of account.
struct Version {
    int major = -1;
    int minor = 0;
    int patch = 0;
    /// Number of the release candidate; the final release comes after all of them.
    int candidate = std::numeric_limits<int>::max();

    constexpr bool is_known() const { return major >= 0; }
    constexpr bool is_final() const { return candidate == std::numeric_limits<int>::max(); }
};

/// Says whether `a` comes before `b`.
constexpr bool operator<(Version a, Version b)
{
    return a.major != b.major   ? a.major < b.major
           : a.minor != b.minor ? a.minor < b.minor
           : a.patch != b.patch ? a.patch < b.patch
                                : a.candidate < b.candidate;
}

/// Reads digits at `text` and moves it behind them; -1 where there are none, or too many.
constexpr int parse_number(char const*& text)
{
    int value = -1;
    for (int digits = 0; *text >= '0' && *text <= '9'; ++text, ++digits) {
        if (digits == 6) {
            return -1;
        }
        value = (value < 0 ? 0 : value * 10) + (*text - '0');
    }
    return value;
}

/// Reads a version; not `is_known` where the text is none.
constexpr Version parse_version(char const* text)
{
    int parts[3] = {-1, -1, 0};
    for (int i = 0; i < 3; ++i) {
        parts[i] = parse_number(text);
        if (parts[i] < 0) {
            return {};
        }
        if (i < 2 && *text++ != '.') {
            return {};
        }
    }
    Version version{parts[0], parts[1], parts[2]};
    if (text[0] == 'r' && text[1] == 'c') {
        text += 2;
        version.candidate = parse_number(text);
        if (version.candidate < 0) {
            return {};
        }
    }
    return *text == '\0' || *text == '.' || *text == '+' ? version : Version{};
}

/// How far a version of TensorRT-LLM is supported.
enum class Support {
    kSupported,
    /// A release candidate that still has the engine Executor: it works, at the user's own risk.
    kCandidate,
    /// Before 0.19 the Executor is a closed library with another C++ ABI.
    kTooOld,
    /// Without the engine Executor.
    kRemoved,
    /// Between the last supported release and the candidates, or no version at all.
    kUnknown,
};

constexpr Version kOldest{0, 19, 0};
constexpr Version kNewest{1, 2, 1};
constexpr Version kFirstCandidate{1, 3, 0, 1};
constexpr Version kLastCandidate{1, 3, 0, 21};

/// Says how far `version` is supported.
constexpr Support support_of(Version version)
{
    if (!version.is_known()) {
        return Support::kUnknown;
    }
    if (version < kOldest) {
        return Support::kTooOld;
    }
    if (!(kNewest < version)) {
        return version.is_final() ? Support::kSupported : Support::kCandidate;
    }
    if (version < kFirstCandidate) {
        return Support::kUnknown;
    }
    return kLastCandidate < version ? Support::kRemoved : Support::kCandidate;
}

/// Says whether the shim runs with `version`.
constexpr bool is_usable(Version version)
{
    return support_of(version) == Support::kSupported || support_of(version) == Support::kCandidate;
}

/// What is to be said of a pair of versions; both sentences are empty when all is well.
struct Verdict {
    std::string refusal;
    std::string warning;
};

/// Judges TensorRT-LLM: the library must be supported, and of the version of the headers.
Verdict judge_tensorrt_llm(std::string const& library, std::string const& headers);

/// Judges TensorRT, numbers as `NV_TENSORRT_VERSION` of TensorRT 10: the same major and minor version on both sides, since
/// the capture replaces a table of virtual functions.
Verdict judge_tensorrt(long library, long headers);

/// Writes 101401 as "10.14.1".
std::string tensorrt_version_text(long number);

}
