// What the shim uses of `tensorrt_llm/executor/types.h`: see declarations/README.md.
#pragma once
#include "../../profile.h"

#include "../../../trtllm/types.h"
