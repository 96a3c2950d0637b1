// Which versions the shim takes, checked while compiling; and the sentences, printed.

#include "shim/version.h"

#include <cstdio>

using namespace rollforge::shim;

static_assert(support_of(parse_version("0.18.2")) == Support::kTooOld, "");
static_assert(support_of(parse_version("0.19.0rc0")) == Support::kTooOld, "");
static_assert(support_of(parse_version("0.19.0")) == Support::kSupported, "");
static_assert(support_of(parse_version("0.21.0")) == Support::kSupported, "");
static_assert(support_of(parse_version("1.0.0")) == Support::kSupported, "");
static_assert(support_of(parse_version("1.2.0rc5")) == Support::kCandidate, "");
static_assert(support_of(parse_version("1.2.1")) == Support::kSupported, "");
static_assert(support_of(parse_version("1.2.1.post1")) == Support::kSupported, "");
static_assert(support_of(parse_version("1.2.2")) == Support::kUnknown, "");
static_assert(support_of(parse_version("1.3.0rc1")) == Support::kCandidate, "");
static_assert(support_of(parse_version("1.3.0rc21")) == Support::kCandidate, "");
static_assert(support_of(parse_version("1.3.0rc22")) == Support::kRemoved, "");
static_assert(support_of(parse_version("1.3.0")) == Support::kRemoved, "");
static_assert(support_of(parse_version("1.4.0rc1")) == Support::kRemoved, "");
static_assert(support_of(parse_version("2.0.0")) == Support::kRemoved, "");

static_assert(!parse_version("").is_known(), "");
static_assert(!parse_version("1.2").is_known(), "");
static_assert(!parse_version("1.2.x").is_known(), "");
static_assert(!parse_version("1.2.1rc").is_known(), "");
static_assert(!parse_version("1.2.1-dirty").is_known(), "");
static_assert(!parse_version("1.2.99999999999").is_known(), "");

static void print(Verdict const& verdict)
{
    std::printf("%s|%s\n", verdict.refusal.c_str(), verdict.warning.c_str());
}

int main()
{
    print(judge_tensorrt_llm("1.2.1", "1.2.1"));
    print(judge_tensorrt_llm("0.18.2", "0.18.2"));
    print(judge_tensorrt_llm("1.3.0", "1.3.0"));
    print(judge_tensorrt_llm("1.3.0rc15", "1.3.0rc15"));
    print(judge_tensorrt_llm("1.2.0", "1.2.1"));
    print(judge_tensorrt_llm("nightly", "1.2.1"));
    print(judge_tensorrt(101403, 101401));
    print(judge_tensorrt(101303, 101401));
}
