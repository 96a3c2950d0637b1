// C++ owners of what the contract hands out: the cxx bridge (bridge.rs) sees these, never the table of functions itself.
//
// A failing call throws; `trycatch` below turns the exception into an Err. Every message begins with the rf_status.

#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "contract.h"
#include "rust/cxx.h"

namespace rollforge::tensorrt_llm {

struct Description;
struct Response;
struct Weight;

/// A call of the contract failed. `what()` is the status as a decimal number, a blank, and the sentence.
class Failure : public std::runtime_error {
public:
    Failure(rf_status status, std::string const& message)
        : std::runtime_error(std::to_string(status) + " " + message) {}
};

/// What a `T** out` was filled with, and the function that frees it.
template <typename T>
using Handle = std::unique_ptr<T, void (*)(T*)>;

/// Bytes of the other side.
class Buffer {
public:
    Buffer(rf_api const& api, rf_buffer* buffer) : api_(api), buffer_(buffer, api.buffer_free) {}
    rust::Slice<uint8_t const> bytes() const;

private:
    rf_api const& api_;
    Handle<rf_buffer> buffer_;
};

/// The refitter of an engine. The engine outlives it.
class Refit {
public:
    Refit(rf_api const& api, rf_engine* engine);
    rust::Vec<Weight> weights() const;
    /// The values must stay where they are until the name is bound anew or the refitter is gone.
    void bind(rust::Str name, int32_t dtype, uint8_t const* values, int64_t count, int32_t location);
    /// `stream` is a cudaStream_t as a number.
    void commit(size_t stream);

private:
    rf_api const& api_;
    Handle<rf_refitter> refitter_;
};

/// A running engine.
class Executor {
public:
    Executor(rf_api const& api, rf_executor* executor) : api_(api), executor_(executor, api.executor_destroy) {}
    bool can_enqueue();
    uint64_t enqueue(rf_request const& request);
    rust::Vec<Response> await(int64_t timeout_ms);
    void cancel(uint64_t id);
    std::unique_ptr<Buffer> stats();
    /// Opens the refitter of the captured engine at the first call.
    Refit& refit();

private:
    rf_api const& api_;
    Handle<rf_executor> executor_;
    // Behind the executor, so that it goes first.
    std::unique_ptr<Refit> refit_;
};

/// A plan that nothing runs.
class Plan {
public:
    Plan(rf_api const& api, rf_engine* engine) : api_(api), engine_(engine, api.engine_free) {}
    std::unique_ptr<Buffer> serialize();
    /// Opens the refitter at the first call.
    Refit& refit();

private:
    rf_api const& api_;
    Handle<rf_engine> engine_;
    // Behind the engine, so that it goes first.
    std::unique_ptr<Refit> refit_;
};

Description describe(bool is_double);
std::unique_ptr<Executor> open_executor(bool is_double, rust::Str engine_dir, rf_executor_config const& config);
std::unique_ptr<Executor> open_executor_from_plan(
    bool is_double, rust::Slice<uint8_t const> plan, rust::Str config_json, rf_executor_config const& config);
std::unique_ptr<Plan> load_plan(bool is_double, rust::Str file);

}  // namespace rollforge::tensorrt_llm

namespace rust::behavior {

/// Lets nothing that is thrown pass into Rust, whatever its type.
template <typename Try, typename Fail>
void trycatch(Try&& call, Fail&& fail) noexcept {
    try {
        call();
    } catch (std::bad_alloc const&) {
        fail("4 host memory is used up");
    } catch (std::exception const& error) {
        fail(error.what());
    } catch (...) {
        fail("7 something that is no std::exception was thrown");
    }
}

}  // namespace rust::behavior
