//! Who may ask. A server on this machine alone can be reached by any web page that its user opens, unless the names under
//! which browsers ask for it are checked: a page's own name may lead here (DNS rebinding), and pages may send requests to other
//! sites than their own.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::asked::Asked;
use crate::page;

/// Who may ask a server.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Keys, of which a request must bring one; none are needed if there are none.
    pub keys: Vec<String>,
    /// Keys that let in as well, and with which requests may load, unload, bring and remove models.
    pub manage_keys: Vec<String>,
    /// Names that a request may ask for, with any port; `None` for all.
    pub hosts: Option<Vec<String>>,
    /// Whether what was computed of prompts is used again for the same key alone: how soon an answer comes tells what others
    /// have asked.
    pub separate_keys: bool,
    /// Origins of web pages that may ask beside those that this server is itself, such as `https://chat.example`; `*` for
    /// all.
    pub origins: Vec<String>,
}

impl Access {
    /// For programs and pages of this machine alone.
    pub fn local() -> Self {
        let names = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        Self { hosts: Some(names.into()), ..Self::default() }
    }

    /// The origin of a page that may read answers, of a request that has one.
    fn allowed_origin<'a>(&self, origin: &'a HeaderValue, host: &str) -> Option<&'a HeaderValue> {
        let text = origin.to_str().ok()?;
        let is_own = text.strip_prefix("http://").or(text.strip_prefix("https://")) == Some(host);
        let is_listed = self.origins.iter().any(|listed| listed == "*" || listed == text);
        (is_own || is_listed).then_some(origin)
    }

    /// The number of the key that a request brings, from 1; 0 if none are needed, `None` if it brings none that is right.
    fn key_number(&self, headers: &HeaderMap) -> Option<u64> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| value.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key);
        // Some clients bring both, one of them for somebody else.
        let given = [bearer, text("x-api-key")].into_iter().flatten();
        // All are looked at, so that the time tells nothing.
        let found = given.flat_map(|key| {
            (1..)
                .zip(self.keys.iter().chain(&self.manage_keys))
                .map(move |(number, known)| (number, known.as_bytes().ct_eq(key.as_bytes())))
        });
        let number = found.fold(0, |found, (number, same)| u64::conditional_select(&found, &number, same));
        let needs_none = self.keys.is_empty() && self.manage_keys.is_empty();
        (needs_none || number > 0).then_some(number)
    }
}

/// Refuses requests that may not be.
pub(crate) async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(&*host, |(name, _)| name);
    if let Some(hosts) = &access.hosts
        && !hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    {
        return refuse(
            request.uri().path(),
            StatusCode::FORBIDDEN,
            "this server does not go by the name that the request asks for",
        );
    }
    let origin = headers.get(header::ORIGIN).cloned();
    let allowed = match &origin {
        None => None,
        Some(origin) => match access.allowed_origin(origin, &host) {
            Some(origin) => Some(origin.clone()),
            None => {
                let reason = "pages of that origin may not ask this server";
                return refuse(request.uri().path(), StatusCode::FORBIDDEN, reason);
            }
        },
    };
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let path = request.uri().path().to_owned();
    let refuse = |status, message| refuse(&path, status, message);
    let key_number = access.key_number(headers);
    let mut response = if request.method() == Method::OPTIONS && allowed.is_some() {
        StatusCode::NO_CONTENT.into_response()
    } else if !needs_no_key(request.uri().path()) && key_number.is_none() {
        refuse(StatusCode::UNAUTHORIZED, "the request brings no key of this server")
    } else {
        let (asked, number) = (Asked::current(), key_number.unwrap_or(0));
        if access.separate_keys {
            asked.share_within(number);
        }
        if number > access.keys.len() as u64 {
            asked.let_manage();
        }
        next.run(request).await
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        // Clients have headers of their own, which do nothing here.
        let asked = asked.unwrap_or(HeaderValue::from_static("authorization, content-type, x-api-key"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, DELETE, OPTIONS"),
        );
    }
    response
}

/// What tells nothing of the models, for who watches over the server and for who is yet to give a key.
fn needs_no_key(path: &str) -> bool {
    path == "/health" || page::is_file(path)
}

/// In the form of the API that the path is of.
pub(crate) fn refuse(path: &str, status: StatusCode, message: &str) -> Response {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::REQUEST_TIMEOUT => "timeout_error",
        _ => "invalid_request_error",
    };
    let body = if path.starts_with("/api/") {
        json!({ "error": message })
    } else if path.starts_with("/v1/messages") {
        json!({ "type": "error", "error": { "type": kind, "message": message } })
    } else {
        json!({ "error": { "message": message, "type": kind, "param": null, "code": null } })
    };
    (status, axum::Json(body)).into_response()
}
