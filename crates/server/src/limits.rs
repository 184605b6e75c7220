//! How much a server takes on.

use std::time::Duration;

use crate::connection::{MAX_AHEAD, MAX_BUFFER, SEND_BUFFER};
use crate::serve::RECEIVE_BUFFER;

/// Bytes of a body that needs no place, because each connection may have one.
pub(crate) const SMALL_BODY: usize = 64 << 10;

/// KiB that reading a body may take which needs no place.
pub(crate) const SMALL_READING_KIB: usize = 256;

/// Bytes of a body for each value that it may have: a message has some fifty, and a prompt of tokens that fills most contexts fits.
const BYTES_PER_VALUE: usize = 32;

/// Values that any body may have.
const MIN_VALUES: usize = 16 << 10;

/// Bodies of the largest size that may come at the same time.
const N_COMING: usize = 2;

/// Memory that reading takes for a byte of a body: its JSON, the conversation, the text and its tokens. Prose takes 5, and one word
/// without an end, where tokens are merged, 43.
const BYTES_OF_BYTE: usize = 64;

/// The same for a value: an object with one field in an array, its growth, and what a template makes of it. Messages without
/// content take 160.
const BYTES_OF_VALUE: usize = 512;

/// Memory that an answer takes for each token while nobody reads it: two events, and twenty others of which the logarithms
/// are told.
const BYTES_OF_EVENTS: usize = 512;

/// Memory of a connection beside its buffers: tasks, and what its request is written with.
const BYTES_OF_TASK: usize = 64 << 10;

/// What there is however little memory: a body with a conversation, and some requests at a time.
const MIN_BODY: usize = 256 << 10;
const MIN_QUEUE: usize = 4;
const MIN_CONNECTIONS: usize = 16;

/// What a server takes on at most, whoever asks.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections that are open: 128. More wait with the system until one is closed.
    pub connections: usize,
    /// How long a connection may stay open on which nothing is asked: 75 seconds, longer than most proxies keep theirs.
    pub idle: Duration,
    /// Requests that wait for a model while it answers others: 64, and 256 at most. More are told to come back later.
    pub queue: usize,
    /// Bytes of a request's body: 4 MiB, a conversation of a million tokens. It has a value of JSON for each 32 of them
    /// at most.
    pub body_bytes: usize,
    /// Tokens of a prompt: as many as the context holds.
    pub prompt_tokens: Option<usize>,
    /// How long a request may wait for the first token of its answer, from when it came, not counting what
    /// loading the model takes: ten minutes.
    pub first_token: Option<Duration>,
    /// How long a request may take in all: an hour. Then its answer ends with an error.
    pub request: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            idle: Duration::from_secs(75),
            queue: 64,
            body_bytes: 4 << 20,
            prompt_tokens: None,
            first_token: Some(Duration::from_secs(600)),
            request: Some(Duration::from_secs(3600)),
        }
    }
}

impl Limits {
    /// Memory that all clients together can make a server take beside its models, the system's buffers of their connections
    /// included: so many bytes for connections and for bodies that come and are read; by default 0.4 GiB, of which a server
    /// with few clients takes little.
    ///
    /// What is not in it: a form of answers, of which one is compiled at a time and kept as long as its answer is made.
    pub fn bytes(&self) -> u64 {
        let buffers = 2 * MAX_BUFFER + MAX_AHEAD + 2 * (SEND_BUFFER + RECEIVE_BUFFER);
        let connection = buffers + SMALL_BODY + SMALL_READING_KIB * 1024 + BYTES_OF_TASK;
        let bodies = self.coming_bytes() + self.reading_kib() * 1024;
        (self.connections * connection + bodies) as u64
    }

    /// The same for the requests of a model with a context of so many tokens that answers so many at a time: prompts that wait,
    /// and answers that nobody reads.
    pub fn bytes_of_model(&self, n_ctx: usize, n_parallel: usize) -> u64 {
        ((self.queue + n_parallel) * n_ctx * BYTES_OF_EVENTS) as u64
    }

    /// The same with smaller bodies, fewer requests that wait and fewer connections, as far as that is needed for all of it to
    /// stay within so many bytes: half as much each time, down to what a client needs.
    #[must_use]
    pub fn within(mut self, n_bytes: u64, n_ctx: usize, n_parallel: usize) -> Self {
        let mut is_smaller = true;
        while is_smaller && self.bytes() + self.bytes_of_model(n_ctx, n_parallel) > n_bytes {
            let before = (self.body_bytes, self.queue, self.connections);
            self.body_bytes = self.body_bytes.min((self.body_bytes / 2).max(MIN_BODY));
            self.queue = self.queue.min((self.queue / 2).max(MIN_QUEUE));
            self.connections = self.connections.min((self.connections / 2).max(MIN_CONNECTIONS));
            is_smaller = (self.body_bytes, self.queue, self.connections) != before;
        }
        self
    }

    /// Values of a request's JSON at most.
    pub(crate) fn values(&self) -> usize {
        (self.body_bytes / BYTES_PER_VALUE).max(MIN_VALUES)
    }

    /// Bytes of large bodies on their way at most.
    pub(crate) fn coming_bytes(&self) -> usize {
        N_COMING * self.body_bytes.max(SMALL_BODY)
    }

    /// KiB that bodies may take that are read: as much as one of the worst kind, or many that people send.
    pub(crate) fn reading_kib(&self) -> usize {
        reading_kib(self.body_bytes, self.values()).max(SMALL_READING_KIB)
    }
}

/// KiB that reading a body of so many bytes and values may take.
pub(crate) fn reading_kib(n_bytes: usize, n_values: usize) -> usize {
    (n_bytes * BYTES_OF_BYTE + n_values * BYTES_OF_VALUE).div_ceil(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_may_take_goes_with_the_memory_there_is() {
        let taken = |limits: &Limits| limits.bytes() + limits.bytes_of_model(4096, 4);
        let all = Limits::default();
        for n_bytes in [1 << 30, 512 << 20, 128 << 20, 64 << 20] {
            let limits = all.clone().within(n_bytes, 4096, 4);
            assert!(taken(&limits) <= n_bytes, "{limits:?} takes {} of {n_bytes}", taken(&limits));
            assert_eq!(limits.body_bytes == all.body_bytes, taken(&all) <= n_bytes);
        }
        let least = all.within(0, 4096, 4);
        assert_eq!(
            (least.body_bytes, least.queue, least.connections),
            (MIN_BODY, MIN_QUEUE, MIN_CONNECTIONS)
        );
        let few = Limits { body_bytes: 1000, queue: 0, connections: 2, ..least };
        assert_eq!(few.clone().within(0, 4096, 4).body_bytes, few.body_bytes, "never more");
    }
}
