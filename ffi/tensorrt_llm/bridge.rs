//! The cxx bridge: what crosses to `bridge.h`. Strings, buffers and errors are cxx's work; structs of pointers are those
//! that bindgen read.
#![allow(
    clippy::missing_safety_doc,
    clippy::multiple_unsafe_ops_per_block,
    unreachable_pub,
    reason = "cxx writes the calls; their promises stand in contract.h and bridge.h"
)]

pub(super) use ffi::*;

// SAFETY: an executor, its captured engine and its refitter belong to one thread at a time, and may move between calls
// (contract.h, "Threads"). Every method that reaches them takes `Pin<&mut Executor>`, so one thread has them at a time.
unsafe impl Send for Executor {}
// SAFETY: as for `Executor`: an engine of `engine_load` and its refitter.
unsafe impl Send for Plan {}

#[cxx::bridge(namespace = "rollforge::tensorrt_llm")]
mod ffi {
    /// `rf_description`; `refusal` is the sentence on why this version is refused.
    struct Description {
        name: String,
        trtllm_version: String,
        trtllm_headers: String,
        tensorrt_version: String,
        tensorrt_headers: String,
        warning: String,
        refusal: String,
        capabilities: u64,
        is_double: bool,
    }

    /// `rf_response`.
    struct Response {
        request_id: u64,
        sequence_index: i32,
        tokens: Vec<i32>,
        log_probs: Vec<f32>,
        finish_reason: i32,
        is_sequence_final: bool,
        is_final: bool,
        failed: bool,
        error: String,
    }

    /// `rf_weight`.
    struct Weight {
        name: String,
        dtype: i32,
        count: i64,
    }

    unsafe extern "C++" {
        include!("rollforge/ffi/tensorrt_llm/bridge.h");
        include!("rollforge/ffi/tensorrt_llm/double/testing.h");

        #[namespace = ""]
        type rf_request = crate::ffi::tensorrt_llm::contract::rf_request;
        #[namespace = ""]
        type rf_executor_config = crate::ffi::tensorrt_llm::contract::rf_executor_config;

        type Buffer;
        fn bytes(self: &Buffer) -> &[u8];

        type Refit;
        fn weights(self: &Refit) -> Result<Vec<Weight>>;
        unsafe fn bind(
            self: Pin<&mut Refit>,
            name: &str,
            dtype: i32,
            values: *const u8,
            count: i64,
            location: i32,
        ) -> Result<()>;
        unsafe fn commit(self: Pin<&mut Refit>, stream: usize) -> Result<()>;

        type Executor;
        fn can_enqueue(self: Pin<&mut Executor>) -> Result<bool>;
        unsafe fn enqueue(self: Pin<&mut Executor>, request: &rf_request) -> Result<u64>;
        #[cxx_name = "await"]
        fn await_responses(self: Pin<&mut Executor>, timeout_ms: i64) -> Result<Vec<Response>>;
        fn cancel(self: Pin<&mut Executor>, id: u64) -> Result<()>;
        fn stats(self: Pin<&mut Executor>) -> Result<UniquePtr<Buffer>>;
        fn refit(self: Pin<&mut Executor>) -> Result<Pin<&mut Refit>>;

        type Plan;
        fn serialize(self: Pin<&mut Plan>) -> Result<UniquePtr<Buffer>>;
        fn refit(self: Pin<&mut Plan>) -> Result<Pin<&mut Refit>>;

        fn describe(is_double: bool) -> Result<Description>;
        unsafe fn open_executor(
            is_double: bool,
            engine_dir: &str,
            config: &rf_executor_config,
        ) -> Result<UniquePtr<Executor>>;
        unsafe fn open_executor_from_plan(
            is_double: bool,
            plan: &[u8],
            config_json: &str,
            config: &rf_executor_config,
        ) -> Result<UniquePtr<Executor>>;
        fn load_plan(is_double: bool, file: &str) -> Result<UniquePtr<Plan>>;

        #[namespace = ""]
        fn rf_double_release_hangs();
    }
}
