#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| metallic_gguf_fuzz::getters(data));
