// The contract between Rollforge and an engine that generates like TensorRT-LLM's Executor: plain C, read by bindgen.
//
// Implemented twice, each time as one table of functions (`rf_api`):
//   - `rf_trtllm_api`, the shim over `tensorrt_llm::executor::Executor` and `nvinfer1::IRefitter` (shim/);
//   - `rf_double_api`, the contract double: a small transformer on the CPU that keeps the same rules (double/).
//
// Rules that hold for both:
//   Failures    Every call that can fail returns a status. Its sentence lies in `last_error` of the calling thread until
//               that thread's next call. No exception and no abort leaves a call.
//   Threads     An executor, its captured engine and its refitter belong to one thread at a time; moving them between
//               threads between calls is allowed. `last_error` is per thread. `describe` may be called from any thread.
//   Ownership   What a call hands out through `T** out` is freed by the function of that name (`*_free`, `*_destroy`,
//               `*_close`), which accepts NULL. What a getter hands out lives as long as the object it was got from.
//               Arguments are read during the call and never kept, but for the values bound by `refit_bind`.
//   Strings     UTF-8, ended by a zero.

#ifndef ROLLFORGE_TENSORRT_LLM_CONTRACT_H
#define ROLLFORGE_TENSORRT_LLM_CONTRACT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Grows with every change of this file; both sides compare.
#define RF_CONTRACT_VERSION 1

/// What became of a call. Values not named here may come from a newer implementation: "other".
typedef int32_t rf_status;
#define RF_OK 0
/// An argument breaks a rule: nothing was done.
#define RF_INVALID_ARGUMENT 1
/// The object is in no state for this call: nothing was done.
#define RF_INVALID_STATE 2
/// The capability is missing: see `rf_description.capabilities`.
#define RF_UNSUPPORTED 3
/// Host or device memory is used up.
#define RF_OUT_OF_MEMORY 4
/// A refit failed and some tensors may already be new: the engine must not generate again.
#define RF_REFIT_PARTIAL 5
/// The versions of headers and library do not go together, or are not supported.
#define RF_VERSION 6
/// Anything else that was thrown.
#define RF_INTERNAL 7

/// What an implementation can do, as bits.
#define RF_CAN_REFIT_IN_PLACE (1ull << 0)       // tier A: the live engine was captured and takes weights
#define RF_CAN_REBUILD (1ull << 1)              // tier C: a plan is loaded, refitted, serialised, and run anew
#define RF_CAN_REFIT_FROM_HOST (1ull << 2)      // `refit_bind` takes host memory
#define RF_CAN_REFIT_FROM_DEVICE (1ull << 3)    // `refit_bind` takes device memory
#define RF_CAN_CACHE_SALT (1ull << 4)           // `rf_request.cache_salt` keeps KV blocks of other salts away
#define RF_CAN_RETURN_SEQUENCES (1ull << 5)     // `rf_request.num_return_sequences` above 1
#define RF_CAN_MIN_P (1ull << 6)
#define RF_CAN_REPORT_CANCEL (1ull << 7)        // FinishReason has "cancelled" and "timed out"
#define RF_CAN_ALLOTTED_TIME (1ull << 8)        // `rf_request.allotted_ms`

/// Number formats of weights.
#define RF_F32 0
#define RF_F16 1
#define RF_BF16 2

/// Where bound values lie.
#define RF_HOST 0
#define RF_DEVICE 1

/// Why a sequence ended. Unknown values pass through as they are.
#define RF_NOT_FINISHED 0
#define RF_END_ID 1
#define RF_STOP_WORDS 2
#define RF_LENGTH 3
#define RF_TIMED_OUT 4
#define RF_CANCELLED 5

/// What an implementation is. The strings are static.
typedef struct rf_description {
    /// "tensorrt-llm", or a name with the word "double" or "stand-in" in it.
    char const* name;
    /// Of the library that runs, such as "1.2.1".
    char const* trtllm_version;
    /// Of the headers it was compiled against.
    char const* trtllm_headers;
    /// Of the TensorRT library that runs ("" when there is none) and of its headers, such as "10.14.1".
    char const* tensorrt_version;
    char const* tensorrt_headers;
    /// A sentence on a version that works but is not supported; "" otherwise.
    char const* warning;
    uint64_t capabilities;
    /// 1 for anything but the real TensorRT-LLM.
    int32_t is_double;
} rf_description;

/// How an executor is set up. Zero means "the engine's own" for sizes.
typedef struct rf_executor_config {
    int32_t max_batch_size;
    int32_t max_num_tokens;
    /// Positions of the KV cache; 0 leaves it to `kv_free_fraction`.
    int64_t kv_max_tokens;
    /// Share of the device memory that is free at creation; 0 means 0.9.
    float kv_free_fraction;
    /// Whether requests share KV blocks of equal prefixes.
    int32_t block_reuse;
    /// Whether long prompts are computed in chunks.
    int32_t chunked_context;
    /// How many iterations' statistics are kept.
    int32_t iteration_stats;
    /// Most requests that wait; 0 is unbounded.
    int32_t max_queue_size;
    /// CUDA device of each participant, and MPI ranks that take part; NULL and 0 for the default.
    int32_t const* device_ids;
    uint64_t device_ids_len;
    int32_t const* participant_ids;
    uint64_t participant_ids_len;
    /// Whether to keep hold of the TensorRT engine for `executor_engine`.
    int32_t capture_engine;
} rf_executor_config;

/// One prompt and how to answer it.
typedef struct rf_request {
    int32_t const* prompt;
    uint64_t prompt_len;
    int32_t max_tokens;
    int32_t streaming;
    int32_t num_return_sequences;
    int32_t return_log_probs;
    uint64_t seed;
    float temperature;
    /// 0 keeps all. 1 is greedy.
    int32_t top_k;
    /// 1 keeps all.
    float top_p;
    /// 0 keeps all.
    float min_p;
    /// 1 is off.
    float repetition_penalty;
    int32_t min_tokens;
    /// Ends a sequence and is left out of the output, as TensorRT-LLM's sampling kernels do; -1 for none.
    int32_t end_id;
    int32_t pad_id;
    /// Token sequences that end a sequence and are part of the output, one after the other, with the length of each.
    int32_t const* stop_words;
    uint64_t const* stop_word_lens;
    uint64_t stop_words_len;
    /// KV blocks are shared among requests of equal salt only; 0 is no salt.
    uint64_t cache_salt;
    /// Ends the request when this much time went by; 0 is unbounded.
    int64_t allotted_ms;
} rf_request;

/// Something that happened to a request. Pointers live as long as the `rf_responses` they came with.
typedef struct rf_response {
    uint64_t request_id;
    int32_t sequence_index;
    /// Only new tokens when streaming; the whole completion otherwise. Never the prompt.
    int32_t const* tokens;
    uint64_t tokens_len;
    /// Of the temperature-scaled distribution. May be longer than `tokens` when streaming: the last `tokens_len` count.
    float const* log_probs;
    uint64_t log_probs_len;
    int32_t finish_reason;
    int32_t is_sequence_final;
    int32_t is_final;
    /// NULL unless the request failed; then only `request_id` and `is_final` mean something.
    char const* error;
} rf_response;

/// A refittable tensor of an engine. The name lives as long as the refitter.
typedef struct rf_weight {
    char const* name;
    int32_t dtype;
    /// In elements.
    int64_t count;
} rf_weight;

typedef struct rf_executor rf_executor;
typedef struct rf_responses rf_responses;
typedef struct rf_engine rf_engine;
typedef struct rf_refitter rf_refitter;
typedef struct rf_buffer rf_buffer;

/// An implementation of the contract.
typedef struct rf_api {
    /// RF_CONTRACT_VERSION of the implementation.
    uint32_t contract_version;

    /// Why the calling thread's latest call failed; "" if it did not. Never NULL.
    char const* (*last_error)(void);

    /// Says what this is, without loading a model. RF_VERSION for a version that is refused, with the sentence why; `out`
    /// is filled all the same.
    rf_status (*describe)(rf_description* out);

    /// Loads an engine directory (config.json, rankN.engine) and starts its threads.
    rf_status (*executor_create)(char const* engine_dir, rf_executor_config const* config, rf_executor** out);
    /// The same from a plan in memory and the text of config.json. The plan may be freed after the call.
    rf_status (*executor_create_from_plan)(
        uint8_t const* plan, uint64_t plan_len, char const* config_json, rf_executor_config const* config,
        rf_executor** out);
    /// Cancels what is in flight, waits for the threads, frees everything. The refitter must be closed before.
    void (*executor_destroy)(rf_executor* executor);

    /// Whether this rank may enqueue: true on the leader only.
    rf_status (*executor_can_enqueue)(rf_executor* executor, int32_t* out);
    rf_status (*executor_enqueue)(rf_executor* executor, rf_request const* request, uint64_t* id);
    /// Waits for responses to any request, at most so long. None in time is no failure: an empty list.
    rf_status (*executor_await)(rf_executor* executor, int64_t timeout_ms, rf_responses** out);
    /// Asks for an early end; the final response still comes. Unknown and ended ids are ignored.
    rf_status (*executor_cancel)(rf_executor* executor, uint64_t id);
    /// JSON of the newest iteration's statistics in TensorRT-LLM's own words; an empty buffer when there is none.
    rf_status (*executor_stats)(rf_executor* executor, rf_buffer** out);

    uint64_t (*responses_len)(rf_responses const* responses);
    rf_status (*responses_get)(rf_responses const* responses, uint64_t index, rf_response* out);
    void (*responses_free)(rf_responses* responses);

    /// The engine that the executor generates with; borrowed: it ends with the executor. Needs `capture_engine`.
    rf_status (*executor_engine)(rf_executor* executor, rf_engine** out);
    /// Loads a plan that nothing runs, to refit and serialise it.
    rf_status (*engine_load)(char const* plan_path, rf_engine** out);
    /// Frees an engine of `engine_load`. Its refitter must be closed before.
    void (*engine_free)(rf_engine* engine);
    /// Writes the plan with the weights it has now.
    rf_status (*engine_serialize)(rf_engine* engine, rf_buffer** out);

    rf_status (*refit_open)(rf_engine* engine, rf_refitter** out);
    uint64_t (*refit_len)(rf_refitter const* refitter);
    rf_status (*refit_weight)(rf_refitter const* refitter, uint64_t index, rf_weight* out);
    /// Says where a tensor's new values lie. They are read at each later commit, so they stay valid until the refitter is
    /// closed or the name is bound anew. Wrong names, dtypes and counts are RF_INVALID_ARGUMENT.
    rf_status (*refit_bind)(
        rf_refitter* refitter, char const* name, int32_t dtype, void const* values, int64_t count, int32_t location);
    /// Puts the bound values into the engine, in order of `stream` (a cudaStream_t, NULL for the default one), and waits
    /// until that is done. Names never bound keep their old values without a word: check the coverage yourself.
    rf_status (*refit_commit)(rf_refitter* refitter, void* stream);
    void (*refit_close)(rf_refitter* refitter);

    uint8_t const* (*buffer_data)(rf_buffer const* buffer);
    uint64_t (*buffer_len)(rf_buffer const* buffer);
    void (*buffer_free)(rf_buffer* buffer);
} rf_api;

/// The shim over TensorRT-LLM. Linked against the real library, or, where there is none, against the stand-in that tests
/// use.
rf_api const* rf_trtllm_api(void);

/// The contract double.
rf_api const* rf_double_api(void);

#ifdef __cplusplus
}
#endif

#endif
