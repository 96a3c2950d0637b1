//! What every backend must do, one suite over all of them; and what the TensorRT-LLM backend does when the library
//! misbehaves.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test may fail, and has no users")]

/// Makes a test of each function for each backend of this build.
macro_rules! for_each_backend {
    ($($name:ident),* $(,)?) => {
        mod native {
            $(#[test]
            fn $name() {
                super::$name(crate::world::Kind::Native);
            })*
        }
        #[cfg(feature = "tensorrt-llm")]
        mod double {
            $(#[test]
            fn $name() {
                super::$name(crate::world::Kind::Double);
            })*
        }
        // The shim, over a stand-in for TensorRT-LLM.
        #[cfg(all(feature = "tensorrt-llm", not(trtllm_linked)))]
        mod stand_in {
            $(#[test]
            fn $name() {
                super::$name(crate::world::Kind::StandIn);
            })*
        }
    };
}

#[cfg(feature = "tensorrt-llm")]
mod faults;
#[cfg(feature = "tensorrt-llm")]
mod hardware;
mod refits;
mod requests;
#[cfg(feature = "tensorrt-llm")]
mod tensorrt_llm;
mod world;
