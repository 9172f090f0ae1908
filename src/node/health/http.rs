//! As much of HTTP/1.1 as probes and scrapers need: one request a connection, no bodies, answers that close.

use super::exposition::Format;

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// GET or HEAD; others are refused before they get here.
    pub path: String,
    /// Which metrics it takes.
    pub format: Format,
    head_only: bool,
}

/// Whether a connection's first line is HTTP, whatever the verb. No line of the control protocol and no peer frame begins so.
pub fn is_http(line: &[u8]) -> bool {
    let mut words = line.split(|b| *b == b' ');
    let verb = words.next().is_some_and(|v| (3..=7).contains(&v.len()) && v.iter().all(u8::is_ascii_uppercase));
    verb && words.nth(1).is_some_and(|v| v.starts_with(b"HTTP/1.")) && words.next().is_none()
}

/// Reads a head: the first line, and the header lines behind it. `Err` is the answer to a verb that nothing here takes.
pub fn parse<'a>(first: &[u8], headers: impl Iterator<Item = &'a [u8]>) -> Result<Request, Vec<u8>> {
    let mut words = first.split(|b| *b == b' ');
    let verb = words.next().unwrap_or_default();
    if !matches!(verb, b"GET" | b"HEAD") {
        return Err(answer("405 Method Not Allowed", "text/plain", "only GET and HEAD\n", false));
    }
    let path = String::from_utf8_lossy(words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default().to_owned();
    let mut format = Format::Plain;
    for line in headers {
        let line = String::from_utf8_lossy(line);
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("accept")
        {
            format = Format::accepted(value);
        }
    }
    Ok(Request { path, format, head_only: verb == b"HEAD" })
}

impl Request {
    /// 200 with plain text.
    pub fn ok(&self, text: &str) -> Vec<u8> {
        self.answer("200 OK", "text/plain; charset=utf-8", text)
    }

    /// 503: not now, and why.
    pub fn unavailable(&self, why: &str) -> Vec<u8> {
        self.answer("503 Service Unavailable", "text/plain; charset=utf-8", why)
    }

    /// 404, and what there is.
    pub fn not_found(&self, what: &str) -> Vec<u8> {
        self.answer("404 Not Found", "text/plain; charset=utf-8", what)
    }

    /// 200 with metrics.
    pub fn metrics(&self, text: &str) -> Vec<u8> {
        self.answer("200 OK", self.format.content_type(), text)
    }

    /// 200 with a JSON document.
    pub fn json(&self, text: &str) -> Vec<u8> {
        self.answer("200 OK", "application/json", text)
    }

    fn answer(&self, code: &str, content_type: &str, body: &str) -> Vec<u8> {
        answer(code, content_type, body, self.head_only)
    }
}

fn answer(code: &str, content_type: &str, body: &str, head_only: bool) -> Vec<u8> {
    let len = body.len();
    let body = if head_only { "" } else { body };
    format!(
        "HTTP/1.1 {code}\r\nContent-Type: {content_type}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_from_what_else_comes_in() {
        for yes in ["GET /metrics HTTP/1.1", "HEAD / HTTP/1.0", "POST /x HTTP/1.1", "OPTIONS * HTTP/1.1"] {
            assert!(is_http(yes.as_bytes()), "{yes}");
        }
        for no in ["{\"v\":1}", "GET k", "GET / HTTP/2.0 x", "get / HTTP/1.1", "GET  HTTP/1.1 x", "", "G / HTTP/1.1"] {
            assert!(!is_http(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn a_head_says_path_format_and_whether_a_body_is_wanted() {
        let headers: [&[u8]; 2] = [b"Host: x", b"ACCEPT: application/openmetrics-text; version=1.0.0"];
        let r = parse(b"GET /metrics?x=1 HTTP/1.1", headers.into_iter()).unwrap();
        assert_eq!((r.path.as_str(), r.format), ("/metrics", Format::Open));
        let text = String::from_utf8(r.ok("ok\n")).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n")
                && text.ends_with("Content-Length: 3\r\nConnection: close\r\n\r\nok\n")
        );
        let r = parse(b"HEAD /healthz HTTP/1.1", std::iter::empty()).unwrap();
        assert!(String::from_utf8(r.ok("ok\n")).unwrap().ends_with("\r\n\r\n"));
        let refused = parse(b"POST / HTTP/1.1", std::iter::empty()).unwrap_err();
        assert!(refused.starts_with(b"HTTP/1.1 405 "));
    }
}
