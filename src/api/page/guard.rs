//! What keeps other sites and strangers off the page.
//!
//! Owns the headers of every answer, and which requests come from the page itself. Invariant: an
//! answer of the page allows no script, style or connection but its own, and no site around it;
//! and nothing changes, nor are data given, on the word of another site.

use crate::progress::problem::{Problem, ProblemCode};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

/// Everything comes from here and nothing is inline. Templates are lit-html's, whose policy is the
/// only one that may make markup of text, and makes it of the page's own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; \
     require-trusted-types-for 'script'; trusted-types lit-html";

/// Says to the browser what the page may do.
pub(super) fn seal(answer: &mut Response) {
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Whether a request for data may be answered: not for a page of another site. A browser that
/// does not say where a read comes from shows the answer to nobody else, either.
pub(super) fn may_read(headers: &HeaderMap) -> bool {
    text(headers, "sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none")
}

/// Whether a request may change something: it comes from this very origin, and says so.
pub(super) fn may_change(headers: &HeaderMap) -> bool {
    let site = text(headers, "sec-fetch-site");
    let origin = text(headers, "origin").map(|origin| {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        Some(host) == text(headers, "host")
    });
    match (site, origin) {
        (None, None) => false,
        (site, origin) => site.is_none_or(|s| s == "same-origin") && origin != Some(false),
    }
}

/// The answer to what another site asks.
pub(super) fn refused() -> Problem {
    let detail = "this is for the page itself, and the request does not come from it";
    let title = "Forbidden".to_owned();
    Problem { status: 403, title, ..Problem::new(ProblemCode::Unauthorized, detail) }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        all.iter().map(pair).collect()
    }

    #[test]
    fn only_the_page_itself_changes_anything() {
        let host = ("host", "localhost:8081");
        let here = ("origin", "http://localhost:8081");
        for (sent, may) in [
            (&[host, here, ("sec-fetch-site", "same-origin")][..], true),
            (&[host, here], true),
            (&[host, ("sec-fetch-site", "same-origin")], true),
            (&[host], false),
            // Another program on this machine: the same site, and not the same origin.
            (&[host, ("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")], false),
            (&[host, ("origin", "http://localhost:3000")], false),
            (&[host, ("origin", "null")], false),
            (&[host, here, ("sec-fetch-site", "cross-site")], false),
            (&[host, here, ("sec-fetch-site", "none")], false),
            (&[("origin", "")], false),
        ] {
            assert_eq!(may_change(&headers(sent)), may, "{sent:?}");
        }
        for (site, may) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false)]
        {
            assert_eq!(may_read(&headers(&[("sec-fetch-site", site)])), may, "{site}");
        }
        assert!(may_read(&headers(&[host])));
    }
}
