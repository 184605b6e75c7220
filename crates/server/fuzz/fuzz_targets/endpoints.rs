#![no_main]

use std::sync::LazyLock;

use metallic_server_fuzz::Server;

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

libfuzzer_sys::fuzz_target!(|data: &[u8]| SERVER.ask_any(data));
