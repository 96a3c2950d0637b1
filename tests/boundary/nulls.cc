// What Rust cannot say to the contract: NULL wherever a pointer goes. Run by ci/asan.sh, under sanitizers.

#include "contract.h"

#include <cstdio>
#include <cstring>

namespace {

int failures = 0;

void expect(bool rule, char const* library, char const* call, char const* sentence) {
    if (rule) return;
    std::fprintf(stderr, "%s: %s: %s\n", library, call, sentence);
    ++failures;
}

/// A call with NULL must fail, and say why.
#define REFUSED(call)                                                                                      \
    do {                                                                                                   \
        rf_status const status = api.call;                                                                 \
        expect(status == RF_INVALID_ARGUMENT, name, #call, "must be RF_INVALID_ARGUMENT");                 \
        expect(std::strlen(api.last_error()) > 0, name, #call, "must leave a sentence");                   \
    } while (false)

void drive(rf_api const& api, char const* name) {
    expect(api.contract_version == RF_CONTRACT_VERSION, name, "contract_version", "must be that of the header");
    rf_executor_config config{};
    rf_request request{};
    rf_executor* executor = nullptr;
    rf_engine* engine = nullptr;
    rf_refitter* refitter = nullptr;
    rf_responses* responses = nullptr;
    rf_buffer* buffer = nullptr;
    rf_response response{};
    rf_weight weight{};
    uint64_t id = 0;
    int32_t can = 0;
    uint8_t const byte = 0;

    REFUSED(describe(nullptr));
    REFUSED(executor_create(nullptr, &config, &executor));
    REFUSED(executor_create("/no/such/folder", nullptr, &executor));
    REFUSED(executor_create("/no/such/folder", &config, nullptr));
    REFUSED(executor_create_from_plan(nullptr, 1, "{}", &config, &executor));
    REFUSED(executor_create_from_plan(&byte, 1, nullptr, &config, &executor));
    REFUSED(executor_create_from_plan(&byte, 1, "{}", nullptr, &executor));
    REFUSED(executor_create_from_plan(&byte, 1, "{}", &config, nullptr));
    REFUSED(executor_can_enqueue(nullptr, &can));
    REFUSED(executor_enqueue(nullptr, &request, &id));
    REFUSED(executor_await(nullptr, 0, &responses));
    REFUSED(executor_cancel(nullptr, 1));
    REFUSED(executor_stats(nullptr, &buffer));
    REFUSED(responses_get(nullptr, 0, &response));
    REFUSED(executor_engine(nullptr, &engine));
    REFUSED(engine_load(nullptr, &engine));
    REFUSED(engine_load("/no/such/file", nullptr));
    REFUSED(engine_serialize(nullptr, &buffer));
    REFUSED(refit_open(nullptr, &refitter));
    REFUSED(refit_weight(nullptr, 0, &weight));
    REFUSED(refit_bind(nullptr, "name", RF_F32, &byte, 1, RF_HOST));
    REFUSED(refit_commit(nullptr, nullptr));

    expect(api.responses_len(nullptr) == 0, name, "responses_len(NULL)", "must be 0");
    expect(api.refit_len(nullptr) == 0, name, "refit_len(NULL)", "must be 0");
    expect(api.buffer_len(nullptr) == 0, name, "buffer_len(NULL)", "must be 0");
    expect(api.buffer_data(nullptr) == nullptr, name, "buffer_data(NULL)", "must be NULL");
    api.executor_destroy(nullptr);
    api.responses_free(nullptr);
    api.engine_free(nullptr);
    api.refit_close(nullptr);
    api.buffer_free(nullptr);

    rf_description description{};
    expect(api.describe(&description) == RF_OK, name, "describe", "must succeed");
    expect(std::strlen(api.last_error()) == 0, name, "describe", "must leave no sentence");
    expect(description.is_double == 1, name, "describe", "must say that it is a double");
}

}  // namespace

int main() {
    drive(*rf_double_api(), "double");
    drive(*rf_trtllm_api(), "shim");
    return failures == 0 ? 0 : 1;
}
