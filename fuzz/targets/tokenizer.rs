#![no_main]
libfuzzer_sys::fuzz_target!(
    init: rollforge_fuzz::let_panics_unwind(),
    |data: &[u8]| rollforge_fuzz::tokenizer(data)
);
