//! The command `metallic`.
#![forbid(unsafe_code)]
fn main() {}
