//! Requests to the hub: whom the token is shown, and how often one is repeated that failed.

use std::cell::Cell;
use std::env;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use ureq::http::{Method, Response, StatusCode, header};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder, Timeout};

use crate::failure::{Failure, Kind, Result};
use crate::fetch::hub_name::endpoint;
use crate::interrupt::Heed;
use crate::terminal::Terminal;

/// Without a network the user should know soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for this long has gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// A renamed repository redirects once, to its new name on the same server.
const MAX_RENAMES: usize = 3;
/// Connections in a row that bring nothing before we give up.
const MAX_FRUITLESS_ATTEMPTS: u32 = 3;
/// Answers in a row that ask to come again before we give up.
const MAX_BUSY_ATTEMPTS: u32 = 4;
/// How long we wait after the first failure; after each further one twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A server that asks for more has the user wait, not us.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// The hub, as this user reaches it.
pub(super) struct Client<'a> {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
    terminal: &'a Terminal,
    interrupt: &'a Heed<'a>,
    /// Whether the hub ever answered. One that did is there, and will come back.
    answered: Cell<bool>,
}

/// Why an attempt failed.
pub(super) enum Stop {
    /// Another would fail as well.
    Final(Failure),
    /// Another makes sense.
    Passing(Trouble),
}

/// What may be over soon.
pub(super) struct Trouble {
    why: String,
    failure: Failure,
    max_attempts: u32,
    /// How long the server asks to wait.
    retry_after: Option<Duration>,
}

/// What an attempt brings.
pub(super) type Attempt<T> = std::result::Result<T, Stop>;

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Final(failure)
    }
}

/// How often something failed in a row.
#[derive(Default)]
pub(super) struct Patience {
    n_failures: u32,
}

impl Patience {
    /// Something went well.
    pub(super) fn renew(&mut self) {
        self.n_failures = 0;
    }
}

impl<'a> Client<'a> {
    pub(super) fn of_user(terminal: &'a Terminal, interrupt: &'a Heed<'a>) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .user_agent(concat!("metallic/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let token = env::var("HF_TOKEN").ok().map(|token| token.trim().to_owned());
        let token = token.filter(|token| !token.is_empty());
        Client { endpoint: endpoint(), token, agent, terminal, interrupt, answered: Cell::new(false) }
    }

    /// The failure to do something at the hub; `what` says what.
    pub(super) fn failure(&self, what: &str) -> Failure {
        Failure::new(Kind::NoModel, format!("{what} from {}", self.endpoint))
    }

    /// Repeats an attempt, after pauses that grow or that the server asks for, until it succeeds, fails for
    /// good, or has failed too often in a row.
    pub(super) fn persist<T>(&self, mut attempt: impl FnMut(&mut Patience) -> Attempt<T>) -> Result<T> {
        let mut patience = Patience::default();
        loop {
            let trouble = match attempt(&mut patience) {
                Ok(done) => return Ok(done),
                Err(Stop::Final(failure)) => return Err(failure),
                Err(Stop::Passing(trouble)) => trouble,
            };
            patience.n_failures += 1;
            if patience.n_failures >= trouble.max_attempts {
                return Err(trouble.failure);
            }
            let growing = FIRST_PAUSE * (1 << (patience.n_failures - 1));
            let pause = trouble.retry_after.unwrap_or(growing);
            if pause > MAX_PAUSE {
                let advice = format!("it asks to wait {} seconds: try again after that", pause.as_secs());
                return Err(trouble.failure.advice(advice));
            }
            self.terminal.note(format_args!("{}: trying again in {} s", trouble.why, pause.as_secs()));
            self.interrupt.sleep(pause)?;
        }
    }

    /// Asks for `path` with the token, follows the names that a repository was given since, but no redirect to
    /// another server, and returns the URL that answered.
    pub(super) fn ask(&self, what: &str, method: &Method, path: &str) -> Attempt<(String, Response<Body>)> {
        let mut path = path.to_owned();
        for _ in 0..=MAX_RENAMES {
            let url = format!("{}{path}", self.endpoint);
            let request = if method == Method::HEAD { self.agent.head(&url) } else { self.agent.get(&url) };
            let response = self.send(what, request.config().max_redirects(0).build())?;
            match header(&response, "location") {
                Some(new)
                    if response.status().is_redirection()
                        && new.starts_with('/')
                        && !new.starts_with("//") =>
                {
                    path = new.to_owned();
                }
                _ => return Ok((url, response)),
            }
        }
        Err(self.failure(what).because("it redirects in a circle").into())
    }

    /// Asks for the content behind a URL of the hub from a byte on, wherever the hub says that it is.
    pub(super) fn ask_content(&self, what: &str, url: &str, from: u64) -> Attempt<Response<Body>> {
        // ureq shows no server the token that it is redirected to.
        self.send(what, self.agent.get(url).header(header::RANGE, format!("bytes={from}-")))
    }

    fn send(&self, what: &str, mut request: RequestBuilder<WithoutBody>) -> Attempt<Response<Body>> {
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.call().map_err(|error| {
            let why = error.to_string();
            let is_passing = self.is_passing(&error);
            let failure = self.failure(what).because(error);
            let failure = failure.advice("check the network, or name a model file by its path");
            if is_passing { self.broken_with(why, failure) } else { Stop::Final(failure) }
        })?;
        self.answered.set(true);
        self.check_status(what, &response)?;
        Ok(response)
    }

    /// A connection that ended before its time.
    pub(super) fn broken(&self, what: &str, why: impl ToString) -> Stop {
        let why = why.to_string();
        let failure = self.failure(what).because(why.clone());
        let advice = "check the network and try again: the download goes on where it stopped";
        self.broken_with(why, failure.advice(advice))
    }

    fn broken_with(&self, why: String, failure: Failure) -> Stop {
        Stop::Passing(Trouble { why, failure, max_attempts: MAX_FRUITLESS_ATTEMPTS, retry_after: None })
    }

    /// Whether a failed request may be answered the next time.
    fn is_passing(&self, error: &ureq::Error) -> bool {
        use io::ErrorKind::{
            ConnectionRefused, HostUnreachable, InvalidData, InvalidInput, NetworkUnreachable,
        };
        match error {
            ureq::Error::Io(error) => match error.kind() {
                ConnectionRefused | HostUnreachable | NetworkUnreachable => self.answered.get(),
                // A certificate that is not trusted.
                InvalidData | InvalidInput => false,
                _ => true,
            },
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => self.answered.get(),
            ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
            _ => false,
        }
    }

    fn check_status(&self, what: &str, response: &Response<Body>) -> Attempt<()> {
        let status = response.status();
        let why = format!("the server answers {status}");
        let failure = self.failure(what).because(why.clone());
        match status.as_u16() {
            200..=399 => Ok(()),
            401 | 403 => Err(failure
                .advice("if it is private or gated, accept its terms at the hub and put a token that may read it in HF_TOKEN")
                .into()),
            404 => Err(failure.advice("check the spelling of owner, repository, revision and file").into()),
            408 | 429 | 500.. => {
                let retry_after =
                    header(response, "retry-after").and_then(|text| retry_after(text, Timestamp::now()));
                let failure = failure.advice("try again later");
                Err(Stop::Passing(Trouble { why, failure, max_attempts: MAX_BUSY_ATTEMPTS, retry_after }))
            }
            _ => Err(failure.advice("try again later").into()),
        }
    }
}

/// Whether the answer is a part of the file that begins at this byte.
pub(super) fn begins_at(response: &Response<Body>, from: u64) -> bool {
    let range = header(response, "content-range").unwrap_or_default();
    response.status() == StatusCode::PARTIAL_CONTENT && range.starts_with(&format!("bytes {from}-"))
}

pub(super) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// How long a server asks to wait: a number of seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    Some(Duration::from_secs(u64::try_from(date.as_second() - now.as_second()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_asks_to_wait_in_seconds_or_until_a_date() {
        // 1994-11-06 08:49:37 UTC, the date of RFC 9110's examples.
        let now = Timestamp::from_second(784_111_777).unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
