#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rollforge_fuzz::manifest(data));
