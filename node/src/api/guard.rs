//! The guard before every request.
//!
//! Loopback is no boundary: any page in a browser can reach it, and DNS rebinding makes the page look local.
//! So over TCP a request must carry the token from the data folder, must name this very server in `Host`
//! (and in the URL, should it name one), and must not come from a foreign `Origin`. The Unix socket is
//! guarded by its folder's permissions; the rest is checked there too, in case a proxy forwards to it.
//!
//! Browsers and WebDAV clients know no bearer tokens, so the files take the token as the password of HTTP Basic too.
//! Browsers send a password along with whatever any page makes them fetch, so then the request must be the user's
//! own. A share link is read without a token: it is one itself.

use std::io;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::error::ApiError;
use crate::data_dir::{DataDir, write_private};
use crate::gateway;

/// The only path that tells something to those without a token: that the node lives.
const OPEN_PATH: &str = "/healthz";

/// What makes a browser ask for the token.
const CHALLENGE: &str = r#"Basic realm="Starfish: any name, the API token as password", charset="UTF-8""#;

/// Entropy of a token, in bytes.
const TOKEN_BYTES: usize = 32;

/// The secret of the TCP API, kept as a hash: comparing hashes takes the same time for every guess.
#[derive(Clone)]
pub(crate) struct Token(blake3::Hash);

/// What is asked of a request, by the door through which it came.
#[derive(Clone)]
pub(crate) enum Guard {
    /// The Unix socket.
    Socket,
    /// Loopback TCP on this port.
    Tcp { port: u16, token: Token },
}

impl Token {
    /// The folder's token, made if there is none.
    pub(crate) fn load_or_create(dir: &DataDir) -> io::Result<Self> {
        let path = dir.token();
        match std::fs::read_to_string(&path) {
            // One that is too short to be ours is replaced: an empty file must not be a password.
            Ok(text) if text.trim().len() >= TOKEN_BYTES => return Ok(Self::new(text.trim())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let text = data_encoding::BASE32_NOPAD.encode(&rand::random::<[u8; TOKEN_BYTES]>()).to_lowercase();
        write_private(&path, format!("{text}\n").as_bytes())?;
        Ok(Self::new(&text))
    }

    pub(crate) fn new(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }

    /// Whether this is the token.
    pub(crate) fn is(&self, presented: &[u8]) -> bool {
        // `blake3::Hash` compares in constant time.
        blake3::hash(presented) == self.0
    }
}

impl Token {
    fn admit<B>(&self, request: &http::Request<B>) -> Result<(), ApiError> {
        match Presented::find(request.headers()) {
            Some(Presented::Bearer(token)) if self.is(&token) => Ok(()),
            Some(Presented::Basic(token))
                if self.is(&token) && gateway::takes_passwords(request.uri().path()) =>
            {
                if is_by_another_page(request) {
                    return Err(foreign_origin());
                }
                Ok(())
            }
            _ => Err(ApiError::new(StatusCode::UNAUTHORIZED, "no-token", "the token is missing or wrong")
                .with_hint(
                    "send `Authorization: Bearer TOKEN`; the token is in `api.token` of the data folder",
                )),
        }
    }
}

/// Whether no token is asked for.
fn is_open<B>(request: &http::Request<B>) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    request.uri().path() == OPEN_PATH || (reads && gateway::is_share(request.uri().path()))
}

/// Whether a page of elsewhere made the browser ask, other than by a link that the user followed. Such a request need
/// not have an `Origin`; what is no browser says nothing of this kind.
fn is_by_another_page<B>(request: &http::Request<B>) -> bool {
    let says = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let is_followed_link = request.method() == Method::GET
        && says("sec-fetch-mode") == Some(b"navigate")
        && says("sec-fetch-dest") == Some(b"document");
    match says("sec-fetch-site") {
        None | Some(b"same-origin" | b"none") => false,
        Some(_) => !is_followed_link,
    }
}

fn foreign_origin() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "foreign-origin", "pages of other origins may not ask")
}

/// How the token is shown.
enum Presented {
    Bearer(Vec<u8>),
    /// As a password; the user's name is of no interest.
    Basic(Vec<u8>),
}

impl Presented {
    fn find(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(AUTHORIZATION)?.as_bytes();
        let space = value.iter().position(|&byte| byte == b' ')?;
        let (scheme, token) = (&value[..space], &value[space + 1..]);
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Some(Self::Bearer(token.to_vec()));
        }
        let credentials = data_encoding::BASE64.decode(token).ok()?;
        let colon = credentials.iter().position(|&byte| byte == b':')?;
        scheme.eq_ignore_ascii_case(b"basic").then(|| Self::Basic(credentials[colon + 1..].to_vec()))
    }
}

/// The middleware.
pub(crate) async fn check(
    State(guard): State<Guard>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Err(refusal) = guard.admit(&request) else { return Ok(next.run(request).await) };
    let is_challenged =
        refusal.status == StatusCode::UNAUTHORIZED && gateway::takes_passwords(request.uri().path());
    let mut response = refusal.into_response();
    if is_challenged {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
    Ok(response)
}

impl Guard {
    fn admit<B>(&self, request: &http::Request<B>) -> Result<(), ApiError> {
        let headers = request.headers();
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let in_url = request.uri().authority().map_or(host, |authority| authority.as_str());
        if hosts.next().is_some() || !self.is_ours(host) || !self.is_ours(in_url) {
            let refusal =
                ApiError::new(StatusCode::FORBIDDEN, "foreign-host", "the Host header is not this node's");
            return Err(refusal.with_hint("ask for http://127.0.0.1 with the API's port"));
        }
        let is_foreign = |origin: &http::HeaderValue| {
            let origin = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
            !origin.is_some_and(|origin| self.is_ours(origin))
        };
        if headers.get_all(ORIGIN).iter().any(is_foreign) {
            return Err(foreign_origin());
        }
        match self {
            Self::Tcp { token, .. } if !is_open(request) => token.admit(request),
            _ => Ok(()),
        }
    }

    /// Whether `authority` is a name of this server, with the right port.
    fn is_ours(&self, authority: &str) -> bool {
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
            _ => (authority, Some(80)),
        };
        let wanted = match self {
            Self::Socket => 80,
            Self::Tcp { port, .. } => *port,
        };
        port == Some(wanted)
            && ["localhost", "127.0.0.1", "[::1]"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(guard: &Guard, uri: &str, headers: &[(&str, &str)]) -> Result<(), String> {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.admit(&request.body(()).unwrap()).map_err(|refusal| refusal.body.code)
    }

    #[test]
    fn over_tcp_host_origin_and_token_must_all_be_right() {
        let guard = Guard::Tcp { port: 12037, token: Token::new("secret") };
        let token = ("authorization", "Bearer secret");
        let host = ("host", "127.0.0.1:12037");
        let ours = |headers: &[(&str, &str)]| verdict(&guard, "/api/v1/status", headers);
        for host in ["127.0.0.1:12037", "localhost:12037", "LOCALHOST:12037", "[::1]:12037"] {
            assert_eq!(ours(&[("host", host), token]), Ok(()), "{host}");
        }
        for host in
            ["evil.example:12037", "127.0.0.1", "127.0.0.1:80", "localhost:", "localhost.:12037", "", "[::1]"]
        {
            assert_eq!(ours(&[("host", host), token]), Err("foreign-host".into()), "{host}");
        }
        assert_eq!(ours(&[token]), Err("foreign-host".into()));
        assert_eq!(ours(&[host, ("host", "evil.example"), token]), Err("foreign-host".into()));
        assert_eq!(verdict(&guard, "http://evil.example/", &[host, token]), Err("foreign-host".into()));

        assert_eq!(ours(&[host, token, ("origin", "http://localhost:12037")]), Ok(()));
        for origin in ["null", "http://evil.example", "https://localhost:12037", "http://localhost:8080"] {
            assert_eq!(ours(&[host, token, ("origin", origin)]), Err("foreign-origin".into()), "{origin}");
        }
        for wrong in ["Bearer secre", "Bearer secret2", "Bearer ", "Basic secret", "secret", "Bearer"] {
            assert_eq!(ours(&[host, ("authorization", wrong)]), Err("no-token".into()), "{wrong}");
        }
    }

    #[test]
    fn the_pulse_needs_no_token_but_the_right_host() {
        let guard = Guard::Tcp { port: 1, token: Token::new("secret") };
        assert_eq!(verdict(&guard, "/healthz", &[("host", "localhost:1")]), Ok(()));
        assert_eq!(verdict(&guard, "/healthz", &[("host", "evil:1")]), Err("foreign-host".into()));
        assert_eq!(verdict(&guard, "/healthz/", &[("host", "localhost:1")]), Err("no-token".into()));
    }

    #[test]
    fn files_take_the_token_as_a_password_and_nothing_else_does() {
        let guard = Guard::Tcp { port: 1, token: Token::new("secret") };
        let basic = |text: &str| format!("Basic {}", data_encoding::BASE64.encode(text.as_bytes()));
        let ask = |path: &str, password: &str, more: &[(&str, &str)]| {
            let (host, value) = (("host", "localhost:1"), basic(password));
            verdict(&guard, path, &[&[host, ("authorization", &*value)], more].concat())
        };
        for path in ["/fs", "/fs/a", "/dav", "/dav/a/b"] {
            assert_eq!(ask(path, "anybody:secret", &[]), Ok(()), "{path}");
            assert_eq!(ask(path, ":secret", &[]), Ok(()), "{path}");
            for wrong in ["secret", "secret:", "anybody:wrong", "anybody:secret:", ""] {
                assert_eq!(ask(path, wrong, &[]), Err("no-token".into()), "{path} {wrong}");
            }
        }
        for path in ["/", "/api/v1/status", "/metrics", "/fsx", "/davy", "/s", "/api/v1/fs/list"] {
            assert_eq!(ask(path, "anybody:secret", &[]), Err("no-token".into()), "{path}");
        }

        let by_a_page = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        assert_eq!(ask("/fs/a", "x:secret", &by_a_page), Err("foreign-origin".into()));
        let from_another_port = [("sec-fetch-site", "same-site")];
        assert_eq!(ask("/fs/a", "x:secret", &from_another_port), Err("foreign-origin".into()));
        let by_a_link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(ask("/fs/a", "x:secret", &by_a_link), Ok(()));
        assert_eq!(ask("/fs/a", "x:secret", &[("sec-fetch-site", "same-origin")]), Ok(()));
    }

    #[test]
    fn a_share_link_is_read_without_a_token_and_from_here_only() {
        let guard = Guard::Tcp { port: 1, token: Token::new("secret") };
        let ask = |method: Method, host: &str| {
            let request = http::Request::builder().method(method).uri("/s/token/a").header("host", host);
            guard.admit(&request.body(()).unwrap()).map_err(|refusal| refusal.body.code)
        };
        assert_eq!(ask(Method::GET, "localhost:1"), Ok(()));
        assert_eq!(ask(Method::HEAD, "localhost:1"), Ok(()));
        assert_eq!(ask(Method::GET, "evil.example:1"), Err("foreign-host".into()));
        for method in [Method::PUT, Method::DELETE, Method::POST] {
            assert_eq!(ask(method, "localhost:1"), Err("no-token".into()));
        }
    }

    #[test]
    fn the_socket_asks_for_no_token_but_serves_no_page() {
        assert_eq!(verdict(&Guard::Socket, "/api/v1/status", &[("host", "localhost")]), Ok(()));
        let page = [("host", "localhost"), ("origin", "http://evil.example")];
        assert_eq!(verdict(&Guard::Socket, "/api/v1/status", &page), Err("foreign-origin".into()));
    }

    #[test]
    fn a_token_is_made_once_and_an_empty_file_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path());
        std::fs::write(dir.token(), "").unwrap();
        let first = Token::load_or_create(&dir).unwrap();
        assert!(first.0 == Token::load_or_create(&dir).unwrap().0);
        assert!(first.0 != Token::new("").0);
    }
}
