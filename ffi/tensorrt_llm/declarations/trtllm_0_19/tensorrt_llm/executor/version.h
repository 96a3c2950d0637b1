// What the shim uses of `tensorrt_llm/executor/version.h`: see declarations/README.md.
#pragma once
#include "../../profile.h"

#include "../../../trtllm/version.h"
