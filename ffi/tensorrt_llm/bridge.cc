#include "rollforge/ffi/tensorrt_llm/bridge.h"

#include <algorithm>
#include <iterator>

#include "rollforge/ffi/tensorrt_llm/bridge.rs.h"

namespace rollforge::tensorrt_llm {
namespace {

void check(rf_api const& api, rf_status status) {
    if (status != RF_OK) {
        std::string const reason = api.last_error();
        throw Failure(status, reason.empty() ? "no reason was given" : reason);
    }
}

rf_api const& api_of(bool is_double) {
    rf_api const* api = is_double ? rf_double_api() : rf_trtllm_api();
    if (api == nullptr || api->contract_version != RF_CONTRACT_VERSION) {
        throw Failure(RF_VERSION, "the other side speaks version " + std::to_string(api ? api->contract_version : 0)
            + " of the contract, this build version " + std::to_string(RF_CONTRACT_VERSION));
    }
    return *api;
}

/// Rust's text with a zero at its end, and none before.
std::string terminated(rust::Str text) {
    std::string const copy(text.data(), text.size());
    if (copy.find('\0') != std::string::npos) {
        throw Failure(RF_INVALID_ARGUMENT, "a zero byte inside of a name, a path or a configuration");
    }
    return copy;
}

template <typename T>
rust::Vec<T> copied(T const* values, uint64_t len) {
    rust::Vec<T> copy;
    copy.reserve(len);
    std::copy_n(values, values == nullptr ? 0 : len, std::back_inserter(copy));
    return copy;
}

rust::String text(char const* bytes) {
    return rust::String::lossy(bytes == nullptr ? "" : bytes);
}

}  // namespace

Description describe(bool is_double) {
    rf_api const& api = api_of(is_double);
    rf_description found{};
    rf_status const status = api.describe(&found);
    rust::String const refusal = status == RF_VERSION ? text(api.last_error()) : rust::String();
    if (status != RF_VERSION) {
        check(api, status);
    }
    return Description{text(found.name), text(found.trtllm_version), text(found.trtllm_headers),
        text(found.tensorrt_version), text(found.tensorrt_headers), text(found.warning), refusal, found.capabilities,
        found.is_double != 0};
}

std::unique_ptr<Executor> open_executor(bool is_double, rust::Str engine_dir, rf_executor_config const& config) {
    rf_api const& api = api_of(is_double);
    rf_executor* executor = nullptr;
    check(api, api.executor_create(terminated(engine_dir).c_str(), &config, &executor));
    return std::make_unique<Executor>(api, executor);
}

std::unique_ptr<Executor> open_executor_from_plan(
    bool is_double, rust::Slice<uint8_t const> plan, rust::Str config_json, rf_executor_config const& config) {
    rf_api const& api = api_of(is_double);
    rf_executor* executor = nullptr;
    check(api, api.executor_create_from_plan(
        plan.data(), plan.size(), terminated(config_json).c_str(), &config, &executor));
    return std::make_unique<Executor>(api, executor);
}

std::unique_ptr<Plan> load_plan(bool is_double, rust::Str file) {
    rf_api const& api = api_of(is_double);
    rf_engine* engine = nullptr;
    check(api, api.engine_load(terminated(file).c_str(), &engine));
    return std::make_unique<Plan>(api, engine);
}

rust::Slice<uint8_t const> Buffer::bytes() const {
    return {api_.buffer_data(buffer_.get()), static_cast<size_t>(api_.buffer_len(buffer_.get()))};
}

Refit::Refit(rf_api const& api, rf_engine* engine) : api_(api), refitter_(nullptr, api.refit_close) {
    rf_refitter* refitter = nullptr;
    check(api_, api_.refit_open(engine, &refitter));
    refitter_.reset(refitter);
}

rust::Vec<Weight> Refit::weights() const {
    uint64_t const len = api_.refit_len(refitter_.get());
    rust::Vec<Weight> weights;
    weights.reserve(len);
    for (uint64_t index = 0; index < len; ++index) {
        rf_weight weight{};
        check(api_, api_.refit_weight(refitter_.get(), index, &weight));
        weights.push_back(Weight{text(weight.name), weight.dtype, weight.count});
    }
    return weights;
}

void Refit::bind(rust::Str name, int32_t dtype, uint8_t const* values, int64_t count, int32_t location) {
    check(api_, api_.refit_bind(refitter_.get(), terminated(name).c_str(), dtype, values, count, location));
}

void Refit::commit(size_t stream) {
    check(api_, api_.refit_commit(refitter_.get(), reinterpret_cast<void*>(stream)));
}

bool Executor::can_enqueue() {
    int32_t can = 0;
    check(api_, api_.executor_can_enqueue(executor_.get(), &can));
    return can != 0;
}

uint64_t Executor::enqueue(rf_request const& request) {
    uint64_t id = 0;
    check(api_, api_.executor_enqueue(executor_.get(), &request, &id));
    return id;
}

rust::Vec<Response> Executor::await(int64_t timeout_ms) {
    rf_responses* out = nullptr;
    check(api_, api_.executor_await(executor_.get(), timeout_ms, &out));
    Handle<rf_responses> const responses(out, api_.responses_free);
    uint64_t const len = api_.responses_len(responses.get());
    rust::Vec<Response> copies;
    copies.reserve(len);
    for (uint64_t index = 0; index < len; ++index) {
        rf_response it{};
        check(api_, api_.responses_get(responses.get(), index, &it));
        copies.push_back(Response{it.request_id, it.sequence_index, copied(it.tokens, it.tokens_len),
            copied(it.log_probs, it.log_probs_len), it.finish_reason, it.is_sequence_final != 0, it.is_final != 0,
            it.error != nullptr, text(it.error)});
    }
    return copies;
}

void Executor::cancel(uint64_t id) {
    check(api_, api_.executor_cancel(executor_.get(), id));
}

std::unique_ptr<Buffer> Executor::stats() {
    rf_buffer* buffer = nullptr;
    check(api_, api_.executor_stats(executor_.get(), &buffer));
    return std::make_unique<Buffer>(api_, buffer);
}

Refit& Executor::refit() {
    if (refit_ == nullptr) {
        rf_engine* engine = nullptr;
        check(api_, api_.executor_engine(executor_.get(), &engine));
        refit_ = std::make_unique<Refit>(api_, engine);
    }
    return *refit_;
}

std::unique_ptr<Buffer> Plan::serialize() {
    rf_buffer* buffer = nullptr;
    check(api_, api_.engine_serialize(engine_.get(), &buffer));
    return std::make_unique<Buffer>(api_, buffer);
}

Refit& Plan::refit() {
    if (refit_ == nullptr) {
        refit_ = std::make_unique<Refit>(api_, engine_.get());
    }
    return *refit_;
}

}  // namespace rollforge::tensorrt_llm
