//! Who is signed in to the page: a cookie that the api can check and nobody else can make.
//!
//! Owns its form and its time. The cookie holds the name and the times, and a MAC over them by a
//! key that is derived from the token: so every replica knows it, and one that was started anew;
//! another token ends all sessions. The price: one that was stolen holds until its time is over,
//! half an hour after the last sign of a person. Pure: `now` is an argument. Invariant: what has
//! no valid MAC is never read.

use crate::progress::ApiToken;
use crate::progress::asking::is_name;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use std::time::{Duration, SystemTime};

/// What the key is for. Another form of the cookie gets another.
const PURPOSE: &str = "streamgate page session 1";
/// Without a sign of a person.
pub(super) const IDLE: Duration = Duration::from_secs(30 * 60);
/// After this the token is asked for again.
const LONGEST: Duration = Duration::from_secs(8 * 3600);
/// The prefix is a promise to the browser that only TLS keeps: this host's, over TLS, on every path.
const NAME_OVER_TLS: &str = "__Host-streamgate";
const NAME: &str = "streamgate";

/// A person who has shown the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// As they have called themselves: kept with what they ask for.
    pub by: String,
    began: u64,
    until: u64,
}

impl Session {
    /// Begins one; `None` where the name cannot be kept with orders.
    pub fn begin(by: &str, now: SystemTime) -> Option<Self> {
        let by = by.trim();
        let (fits, by, began) = (is_name(by), by.to_owned(), seconds(now));
        fits.then(|| Self { by, began, until: began }.renewed(now))
    }

    /// The same with its time begun anew, as far as the longest allows.
    pub fn renewed(&self, now: SystemTime) -> Self {
        let until = (seconds(now) + IDLE.as_secs()).min(self.began + LONGEST.as_secs());
        Self { until, ..self.clone() }
    }

    /// How long it holds.
    pub fn left(&self, now: SystemTime) -> Duration {
        Duration::from_secs(self.until.saturating_sub(seconds(now)))
    }
}

/// Makes cookies and reads them.
pub(super) struct Sessions {
    key: hmac::Key,
    over_tls: bool,
}

impl Sessions {
    /// Of an api with this token, whose listener speaks TLS or does not.
    pub fn new(token: &ApiToken, over_tls: bool) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &token.derived(PURPOSE)), over_tls }
    }

    /// `Set-Cookie` for a session.
    pub fn cookie(&self, session: &Session, now: SystemTime) -> String {
        self.set(&self.sealed(session), session.left(now).as_secs())
    }

    /// `Set-Cookie` that ends it in this browser.
    pub fn farewell(&self) -> String {
        self.set("", 0)
    }

    fn set(&self, value: &str, seconds: u64) -> String {
        let name = self.name();
        // Without TLS a browser sends it to the other ports of this host as well, but so not to all.
        let (path, secure) = if self.over_tls { ("/", "; Secure") } else { ("/page", "") };
        format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }

    fn name(&self) -> &'static str {
        if self.over_tls { NAME_OVER_TLS } else { NAME }
    }

    fn sealed(&self, session: &Session) -> String {
        let Session { by, began, until } = session;
        let said = format!("{}.{began}.{until}", BASE64.encode(by));
        let mac = BASE64.encode(hmac::sign(&self.key, said.as_bytes()));
        format!("{said}.{mac}")
    }

    /// The session that the `Cookie` header `cookies` shows, if it holds.
    pub fn read(&self, cookies: &str, now: SystemTime) -> Option<Session> {
        let name = self.name();
        // A browser may send more than one of a name: another program of this host has made them.
        let mut named = cookies.split(';').filter_map(|one| one.trim().split_once('='));
        named.find_map(|(other, value)| (other == name).then(|| self.opened(value, now))?)
    }

    fn opened(&self, value: &str, now: SystemTime) -> Option<Session> {
        let (said, mac) = value.rsplit_once('.')?;
        let mac = BASE64.decode(mac).ok()?;
        hmac::verify(&self.key, said.as_bytes(), &mac).ok()?;
        let mut parts = said.split('.');
        let by = String::from_utf8(BASE64.decode(parts.next()?).ok()?).ok()?;
        let (began, until) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let holds = until > seconds(now);
        holds.then_some(Session { by, began, until })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn sessions(token: &str) -> Sessions {
        Sessions::new(&ApiToken::new(token).unwrap(), false)
    }

    /// What the browser sends back.
    fn sent(set: &str) -> String {
        format!("other=1; {}; streamgate=nonsense", set.split(';').next().unwrap())
    }

    #[test]
    fn a_session_holds_for_half_an_hour_after_the_last_sign_and_for_eight_at_most() {
        let (of, start) = (sessions("0123456789abcdef"), SystemTime::UNIX_EPOCH + 99 * MINUTE);
        let mut session = Session::begin("  ann ✓ ", start).unwrap();
        assert_eq!(session.by, "ann ✓");
        let cookie = sent(&of.cookie(&session, start));
        assert_eq!(of.read(&cookie, start + 29 * MINUTE), Some(session.clone()));
        assert_eq!(of.read(&cookie, start + 30 * MINUTE), None);
        let mut now = start;
        let mut renewals = 0;
        while session.left(now) > Duration::ZERO {
            now += 20 * MINUTE;
            session = session.renewed(now);
            renewals += 1;
        }
        assert_eq!((renewals, now), (24, start + 8 * 60 * MINUTE));
        assert_eq!(of.read(&sent(&of.cookie(&session, now)), now), None);
    }

    #[test]
    fn a_cookie_that_was_changed_or_made_with_another_token_is_none() {
        let (of, now) = (sessions("0123456789abcdef"), SystemTime::UNIX_EPOCH);
        let session = Session::begin("ann", now).unwrap();
        let sealed = of.sealed(&session);
        assert!(of.opened(&sealed, now).is_some());
        assert!(sessions("0123456789abcdeF").opened(&sealed, now).is_none());
        for at in 0..sealed.len() {
            let mut other = sealed.clone().into_bytes();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            let other = String::from_utf8(other).unwrap();
            // The last character of base64 has bits that say nothing.
            assert!(of.opened(&other, now).is_none() || at + 1 == sealed.len(), "{at}");
        }
        for nonsense in ["", ".", "...", "a.b.c.d", &sealed[..sealed.len() - 2]] {
            assert!(of.opened(nonsense, now).is_none(), "{nonsense}");
        }
    }

    #[test]
    fn scripts_and_other_sites_do_not_get_it_and_over_tls_it_says_so() {
        let now = SystemTime::UNIX_EPOCH;
        let session = Session::begin("ann", now).unwrap();
        let plain = sessions("0123456789abcdef").cookie(&session, now);
        assert!(
            plain.ends_with("; Path=/page; Max-Age=1800; HttpOnly; SameSite=Strict"),
            "{plain}"
        );
        let of = Sessions::new(&ApiToken::new("0123456789abcdef").unwrap(), true);
        let set = of.cookie(&session, now);
        assert!(set.starts_with("__Host-streamgate=") && set.ends_with("; Secure"), "{set}");
        assert!(of.farewell().contains("=; Path=/; Max-Age=0"), "{}", of.farewell());
        for name in ["", " ", "a\nb", "a\u{2066}b", &"x".repeat(129)] {
            assert_eq!(Session::begin(name, now), None, "{name:?}");
        }
    }
}
