//! `contract.h`, as bindgen reads it: plain structs and constants. Its functions are called by `bridge.cc` alone.
#![allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    unreachable_pub,
    clippy::all,
    reason = "generated"
)]

include!(concat!(env!("OUT_DIR"), "/contract.rs"));

// SAFETY: the id is the C++ name of the very struct that bindgen read, whose layout its assertions check; it is plain data.
unsafe impl cxx::ExternType for rf_request {
    type Id = cxx::type_id!("rf_request");
    type Kind = cxx::kind::Trivial;
}

// SAFETY: as for `rf_request`.
unsafe impl cxx::ExternType for rf_executor_config {
    type Id = cxx::type_id!("rf_executor_config");
    type Kind = cxx::kind::Trivial;
}
