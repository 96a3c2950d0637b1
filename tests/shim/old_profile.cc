// The shim compiled against the oldest headers that are supported: what they lack is refused, not left out.

#include "shim/detect.h"
#include "shim/guard.h"
#include "shim/objects.h"

#include <cstdio>

using namespace rollforge::shim;

/// The stand-in refers to the double; nothing here calls it.
extern "C" rf_api const* rf_double_api(void)
{
    return nullptr;
}

int main()
{
    std::uint64_t const found = detected_capabilities();
    std::printf("cache salt: %d\n", (found & RF_CAN_CACHE_SALT) != 0);
    std::printf("sequences: %d\n", (found & RF_CAN_RETURN_SEQUENCES) != 0);
    std::int32_t const prompt[] = {1};
    rf_request request = {};
    request.prompt = prompt;
    request.prompt_len = 1;
    request.max_tokens = request.num_return_sequences = 1;
    request.temperature = request.top_p = request.repetition_penalty = 1;
    request.end_id = -1;
    std::printf("%d\n", guard([&] { request_of(request); }));
    request.cache_salt = 3;
    std::printf("%d ", guard([&] { request_of(request); }));
    std::puts(last_error());
}
