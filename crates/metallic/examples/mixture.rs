//! Writes a mixture of experts of 100 MB, whose weights are random, for runs within a budget.
//!
//!     cargo run --example mixture -- FILE

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("give the file to write")?;
    Ok(std::fs::write(path, metallic::testing::small_mixture()?)?)
}
