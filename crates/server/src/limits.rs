//! How much a server takes on.

use std::time::Duration;

/// What a server takes on at most, whoever asks.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections that are open: 128. More wait with the system until one is closed.
    pub connections: usize,
    /// How long a connection may stay open on which nothing is asked: 75 seconds, longer than most proxies keep theirs.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 128, idle: Duration::from_secs(75) }
    }
}
