#include "shim/guard.h"
#include "shim/objects.h"

extern "C" rf_api const* rf_trtllm_api(void)
{
    static rf_api const table = [] {
        rf_api api{};
        api.contract_version = RF_CONTRACT_VERSION;
        api.last_error = rollforge::shim::last_error;
        rollforge::shim::add_description(api);
        rollforge::shim::add_executor(api);
        rollforge::shim::add_responses(api);
        rollforge::shim::add_engine(api);
        rollforge::shim::add_refit(api);
        rollforge::shim::add_buffer(api);
        return api;
    }();
    return &table;
}
