//! Who may ask. A server on this machine alone can be reached by any web page that its user opens, unless the names under
//! which browsers ask for it are checked: a page's own name may lead here (DNS rebinding), and pages may send requests to other
//! sites than their own.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use subtle::ConstantTimeEq;

/// Who may ask a server.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Keys, of which a request must bring one; none are needed if there are none.
    pub keys: Vec<String>,
    /// Names that a request may ask for, with any port; `None` for all.
    pub hosts: Option<Vec<String>>,
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

    fn has_key(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
        let key = bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()));
        let Some(key) = key else { return self.keys.is_empty() };
        // All are looked at, so that the time tells nothing.
        let found = self
            .keys
            .iter()
            .fold(0, |found, known| found | known.as_bytes().ct_eq(key.as_bytes()).unwrap_u8());
        self.keys.is_empty() || found == 1
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
            StatusCode::FORBIDDEN,
            "this server does not go by the name that the request asks for",
        );
    }
    let origin = headers.get(header::ORIGIN).cloned();
    let allowed = match &origin {
        None => None,
        Some(origin) => match access.allowed_origin(origin, &host) {
            Some(origin) => Some(origin.clone()),
            None => return refuse(StatusCode::FORBIDDEN, "pages of that origin may not ask this server"),
        },
    };
    let mut response = if request.method() == Method::OPTIONS && allowed.is_some() {
        StatusCode::NO_CONTENT.into_response()
    } else if request.uri().path() != "/health" && !access.has_key(headers) {
        refuse(StatusCode::UNAUTHORIZED, "the request brings no key of this server")
    } else {
        next.run(request).await
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization, content-type, x-api-key"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, DELETE, OPTIONS"),
        );
    }
    response
}

/// In a form that all clients read a message from.
fn refuse(status: StatusCode, message: &str) -> Response {
    let kind = if status == StatusCode::UNAUTHORIZED { "authentication_error" } else { "permission_error" };
    let body = json!({ "error": { "message": message, "type": kind, "param": null, "code": null } });
    (status, axum::Json(body)).into_response()
}
