//! Runs GGUF language models inside a memory budget.
