// The contract's table of functions over the double. Every function is guarded: nothing that is thrown leaves it.
//
// The contract's opaque types are never defined here: the shim gives them other definitions, and both live in one binary.

#include "../contract.h"

#include "engine.h"
#include "executor.h"
#include "failure.h"
#include "refitter.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace rollforge::contract_double {
namespace {

constexpr char const* plan_file = "rank0.engine";
constexpr char const* config_file = "config.json";
/// No engine's configuration comes near this.
constexpr std::size_t max_config = std::size_t{1} << 20;

struct EngineHandle {
    std::shared_ptr<Engine> engine;
};

struct ExecutorHandle {
    std::unique_ptr<Executor> executor;
    EngineHandle engine;
    bool capture_engine;
};

using Responses = std::vector<Response>;
using Buffer = std::vector<uint8_t>;

EngineHandle* own(rf_engine* engine) { return reinterpret_cast<EngineHandle*>(engine); }
ExecutorHandle* own(rf_executor* executor) { return reinterpret_cast<ExecutorHandle*>(executor); }
Refitter* own(rf_refitter* refitter) { return reinterpret_cast<Refitter*>(refitter); }
Refitter const* own(rf_refitter const* refitter) { return reinterpret_cast<Refitter const*>(refitter); }
Responses const* own(rf_responses const* responses) { return reinterpret_cast<Responses const*>(responses); }
Buffer const* own(rf_buffer const* buffer) { return reinterpret_cast<Buffer const*>(buffer); }

/// The latest failure of each thread. Fixed in size: it must also take the news that memory is used up.
thread_local char sentence[1024] = "";

rf_status note(rf_status status, char const* text) {
    std::snprintf(sentence, sizeof sentence, "%s", text);
    // A message of one line.
    for (char* c = sentence; *c != '\0'; ++c)
        if (*c == '\n' || *c == '\r') *c = ' ';
    return status;
}

/// Runs a call and turns what it throws into a status.
template <typename Call>
rf_status guarded(Call call) {
    try {
        sentence[0] = '\0';
        call();
        return RF_OK;
    } catch (Failure const& failure) {
        return note(failure.status(), failure.what());
    } catch (std::bad_alloc const&) {
        return note(RF_OUT_OF_MEMORY, "host memory is used up");
    } catch (std::exception const& error) {
        return note(RF_INTERNAL, error.what());
    } catch (...) {
        return note(RF_INTERNAL, "something was thrown that is no std::exception");
    }
}

void not_null(void const* pointer, char const* name) {
    require(pointer != nullptr, std::string(name) + " must not be NULL");
}

char const* last_error() { return sentence; }

rf_status describe(rf_description* out) {
    return guarded([&] {
        not_null(out, "out");
        *out = rf_description{};
        out->name = "tensorrt-llm contract double";
        out->trtllm_version = out->trtllm_headers = "";
        out->tensorrt_version = out->tensorrt_headers = "";
        out->warning = "";
        out->capabilities = RF_CAN_REFIT_IN_PLACE | RF_CAN_REBUILD | RF_CAN_REFIT_FROM_HOST | RF_CAN_CACHE_SALT |
                            RF_CAN_RETURN_SEQUENCES | RF_CAN_MIN_P | RF_CAN_REPORT_CANCEL | RF_CAN_ALLOTTED_TIME;
        out->is_double = 1;
    });
}

std::size_t size_of(int64_t value, char const* name) {
    require(value >= 0, std::string(name) + " must be at least 0, found " + std::to_string(value));
    return static_cast<std::size_t>(value);
}

ExecutorConfig read_config(rf_executor_config const& config) {
    bool const fraction = config.kv_free_fraction >= 0 && config.kv_free_fraction <= 1;
    require(fraction, "kv_free_fraction must be from 0 to 1, found " + std::to_string(config.kv_free_fraction));
    ExecutorConfig out;
    out.max_batch_size = size_of(config.max_batch_size, "max_batch_size");
    out.max_num_tokens = size_of(config.max_num_tokens, "max_num_tokens");
    out.kv_max_tokens = size_of(config.kv_max_tokens, "kv_max_tokens");
    out.max_queue_size = size_of(config.max_queue_size, "max_queue_size");
    out.block_reuse = config.block_reuse != 0;
    out.chunked_context = config.chunked_context != 0;
    return out;
}

/// Reads a small file whole.
std::string read_text(std::string const& path) {
    std::ifstream in(path, std::ios::binary);
    require(static_cast<bool>(in), path + ": cannot be opened");
    std::string text(max_config + 1, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(in.gcount()));
    require(text.size() <= max_config, path + ": must be at most 1 MiB large");
    return text;
}

/// The double reads its sizes from the plan; that the text is there and whole is all it asks.
void check_json(std::string const& text, std::string const& name) {
    char const* const space = " \t\r\n";
    std::size_t const first = text.find_first_not_of(space);
    bool const object = first != std::string::npos && text[first] == '{' && text[text.find_last_not_of(space)] == '}';
    require(object, name + ": must be a JSON object");
}

rf_executor* create(Plan plan, rf_executor_config const& config) {
    auto handle = std::make_unique<ExecutorHandle>();
    handle->engine.engine = std::make_shared<Engine>(std::move(plan));
    handle->executor = std::make_unique<Executor>(handle->engine.engine, read_config(config));
    handle->capture_engine = config.capture_engine != 0;
    return reinterpret_cast<rf_executor*>(handle.release());
}

rf_status executor_create(char const* engine_dir, rf_executor_config const* config, rf_executor** out) {
    return guarded([&] {
        not_null(engine_dir, "engine_dir");
        not_null(config, "config");
        not_null(out, "out");
        std::string const folder = engine_dir;
        std::string const json = folder + "/" + config_file;
        check_json(read_text(json), json);
        *out = create(Plan::read(folder + "/" + plan_file), *config);
    });
}

rf_status executor_create_from_plan(uint8_t const* plan, uint64_t plan_len, char const* config_json,
                                    rf_executor_config const* config, rf_executor** out) {
    return guarded([&] {
        not_null(plan, "plan");
        not_null(config_json, "config_json");
        not_null(config, "config");
        not_null(out, "out");
        check_json(config_json, "config_json");
        Plan parsed = Plan::parse(plan, plan_len, "plan");
        if ((parsed.lacks & RF_CAN_REBUILD) != 0) throw Failure(RF_UNSUPPORTED, "this engine lacks rebuilding");
        *out = create(std::move(parsed), *config);
    });
}

void executor_destroy(rf_executor* executor) {
    std::unique_ptr<ExecutorHandle> handle(own(executor));
    if (handle) guarded([&] { handle->engine.engine->faults().reach("destroy"); });
}

rf_status executor_can_enqueue(rf_executor* executor, int32_t* out) {
    return guarded([&] {
        not_null(executor, "executor");
        not_null(out, "out");
        *out = own(executor)->executor->can_enqueue() ? 1 : 0;
    });
}

Request read_request(rf_request const& from) {
    Request to;
    if (from.prompt_len > 0) not_null(from.prompt, "prompt");
    to.prompt.assign(from.prompt, from.prompt + from.prompt_len);
    to.max_tokens = from.max_tokens;
    to.streaming = from.streaming != 0;
    to.num_return_sequences = from.num_return_sequences;
    to.return_log_probs = from.return_log_probs != 0;
    to.sampling.seed = from.seed;
    to.sampling.temperature = from.temperature;
    to.sampling.top_k = from.top_k;
    to.sampling.top_p = from.top_p;
    to.sampling.min_p = from.min_p;
    to.sampling.repetition_penalty = from.repetition_penalty;
    to.sampling.min_tokens = from.min_tokens;
    to.sampling.end_id = from.end_id;
    if (from.stop_words_len > 0) {
        not_null(from.stop_words, "stop_words");
        not_null(from.stop_word_lens, "stop_word_lens");
    }
    int32_t const* word = from.stop_words;
    for (uint64_t i = 0; i < from.stop_words_len; word += from.stop_word_lens[i++])
        to.stop_words.emplace_back(word, word + from.stop_word_lens[i]);
    to.cache_salt = from.cache_salt;
    to.allotted_ms = from.allotted_ms;
    return to;
}

rf_status executor_enqueue(rf_executor* executor, rf_request const* request, uint64_t* id) {
    return guarded([&] {
        not_null(executor, "executor");
        not_null(request, "request");
        not_null(id, "id");
        *id = own(executor)->executor->enqueue(read_request(*request));
    });
}

rf_status executor_await(rf_executor* executor, int64_t timeout_ms, rf_responses** out) {
    return guarded([&] {
        not_null(executor, "executor");
        not_null(out, "out");
        size_of(timeout_ms, "timeout_ms");
        // A day is as good as for ever, and far from what a clock can overflow at.
        std::chrono::milliseconds const timeout(std::min<int64_t>(timeout_ms, 86'400'000));
        auto responses = std::make_unique<Responses>(own(executor)->executor->await(timeout));
        *out = reinterpret_cast<rf_responses*>(responses.release());
    });
}

rf_status executor_cancel(rf_executor* executor, uint64_t id) {
    return guarded([&] {
        not_null(executor, "executor");
        own(executor)->executor->cancel(id);
    });
}

rf_status executor_stats(rf_executor* executor, rf_buffer** out) {
    return guarded([&] {
        not_null(executor, "executor");
        not_null(out, "out");
        std::string const json = own(executor)->executor->statistics();
        *out = reinterpret_cast<rf_buffer*>(std::make_unique<Buffer>(json.begin(), json.end()).release());
    });
}

uint64_t responses_len(rf_responses const* responses) { return responses == nullptr ? 0 : own(responses)->size(); }

rf_status responses_get(rf_responses const* responses, uint64_t index, rf_response* out) {
    return guarded([&] {
        not_null(responses, "responses");
        not_null(out, "out");
        uint64_t const len = own(responses)->size();
        require(index < len, "index must be below " + std::to_string(len) + ", found " + std::to_string(index));
        Response const& from = (*own(responses))[index];
        *out = rf_response{};
        out->request_id = from.request_id;
        out->sequence_index = from.sequence_index;
        out->tokens = from.tokens.data();
        out->tokens_len = from.tokens.size();
        out->log_probs = from.log_probs.data();
        out->log_probs_len = from.log_probs.size();
        out->finish_reason = from.finish_reason;
        out->is_sequence_final = from.is_sequence_final ? 1 : 0;
        out->is_final = from.is_final ? 1 : 0;
        out->error = from.error.empty() ? nullptr : from.error.c_str();
    });
}

void responses_free(rf_responses* responses) { delete own(responses); }

rf_status executor_engine(rf_executor* executor, rf_engine** out) {
    return guarded([&] {
        not_null(executor, "executor");
        not_null(out, "out");
        ExecutorHandle& handle = *own(executor);
        handle.engine.engine->faults().reach("engine");
        handle.engine.engine->require(RF_CAN_REFIT_IN_PLACE, "a refit in place");
        if (!handle.capture_engine) throw Failure(RF_INVALID_STATE, "the executor was created without capture_engine");
        *out = reinterpret_cast<rf_engine*>(&handle.engine);
    });
}

rf_status engine_load(char const* plan_path, rf_engine** out) {
    return guarded([&] {
        not_null(plan_path, "plan_path");
        not_null(out, "out");
        auto handle = std::make_unique<EngineHandle>();
        handle->engine = std::make_shared<Engine>(Plan::read(plan_path));
        handle->engine->faults().reach("load");
        handle->engine->require(RF_CAN_REBUILD, "rebuilding");
        *out = reinterpret_cast<rf_engine*>(handle.release());
    });
}

void engine_free(rf_engine* engine) { delete own(engine); }

rf_status engine_serialize(rf_engine* engine, rf_buffer** out) {
    return guarded([&] {
        not_null(engine, "engine");
        not_null(out, "out");
        auto bytes = std::make_unique<Buffer>(own(engine)->engine->serialize());
        *out = reinterpret_cast<rf_buffer*>(bytes.release());
    });
}

rf_status refit_open(rf_engine* engine, rf_refitter** out) {
    return guarded([&] {
        not_null(engine, "engine");
        not_null(out, "out");
        *out = reinterpret_cast<rf_refitter*>(std::make_unique<Refitter>(own(engine)->engine).release());
    });
}

uint64_t refit_len(rf_refitter const* refitter) { return refitter == nullptr ? 0 : own(refitter)->weights().size(); }

rf_status refit_weight(rf_refitter const* refitter, uint64_t index, rf_weight* out) {
    return guarded([&] {
        not_null(refitter, "refitter");
        not_null(out, "out");
        std::vector<Tensor> const& weights = own(refitter)->weights();
        require(index < weights.size(),
                "index must be below " + std::to_string(weights.size()) + ", found " + std::to_string(index));
        Tensor const& tensor = weights[index];
        *out = rf_weight{tensor.name.c_str(), tensor.dtype, static_cast<int64_t>(tensor.count)};
    });
}

rf_status refit_bind(rf_refitter* refitter, char const* name, int32_t dtype, void const* values, int64_t count,
                     int32_t location) {
    return guarded([&] {
        not_null(refitter, "refitter");
        not_null(name, "name");
        if (location != RF_HOST) throw Failure(RF_UNSUPPORTED, "the double takes weights from host memory only");
        own(refitter)->bind(name, dtype, values, count);
    });
}

rf_status refit_commit(rf_refitter* refitter, void*) {
    return guarded([&] {
        not_null(refitter, "refitter");
        own(refitter)->commit();
    });
}

void refit_close(rf_refitter* refitter) { delete own(refitter); }

uint8_t const* buffer_data(rf_buffer const* buffer) { return buffer == nullptr ? nullptr : own(buffer)->data(); }

uint64_t buffer_len(rf_buffer const* buffer) { return buffer == nullptr ? 0 : own(buffer)->size(); }

void buffer_free(rf_buffer* buffer) { delete own(buffer); }

constexpr rf_api api = {
    RF_CONTRACT_VERSION,
    last_error,
    describe,
    executor_create,
    executor_create_from_plan,
    executor_destroy,
    executor_can_enqueue,
    executor_enqueue,
    executor_await,
    executor_cancel,
    executor_stats,
    responses_len,
    responses_get,
    responses_free,
    executor_engine,
    engine_load,
    engine_free,
    engine_serialize,
    refit_open,
    refit_len,
    refit_weight,
    refit_bind,
    refit_commit,
    refit_close,
    buffer_data,
    buffer_len,
    buffer_free,
};

}  // namespace
}  // namespace rollforge::contract_double

rf_api const* rf_double_api(void) { return &rollforge::contract_double::api; }
