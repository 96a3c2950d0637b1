// What the shim uses of `tensorrt_llm/executor/executor.h`: see declarations/README.md.
#pragma once
#include "../../profile.h"

#include "../../../trtllm/executor.h"
