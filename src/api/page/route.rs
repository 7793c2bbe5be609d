//! What a path of the page means, but for its files.
//!
//! Owns paths and methods. Invariant: what changes something, or gives contents of items, is a
//! POST.

use super::PATH;
use crate::progress::problem::{Problem, ProblemCode};
use axum::http::Method;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    SignIn,
    Renew,
    SignOut,
    /// Who is signed in, and which streams there are.
    About,
    Events,
    Letters,
    Letter,
    Delete,
    Order,
}

const ROUTES: &[(&str, Method, Route)] = &[
    ("/session", Method::GET, Route::About),
    ("/session", Method::POST, Route::SignIn),
    ("/renew", Method::POST, Route::Renew),
    ("/sign-out", Method::POST, Route::SignOut),
    ("/events", Method::GET, Route::Events),
    ("/letters", Method::GET, Route::Letters),
    ("/letter", Method::POST, Route::Letter),
    ("/delete", Method::POST, Route::Delete),
    ("/order", Method::POST, Route::Order),
];

impl Route {
    /// What the method and the path below the page's ask for.
    pub fn of(method: &Method, below: &str) -> Result<Self, Problem> {
        let there = || ROUTES.iter().filter(|(path, _, _)| *path == below);
        if let Some((_, _, route)) = there().find(|(_, other, _)| other == method) {
            return Ok(*route);
        }
        Err(match there().next() {
            Some((_, other, _)) => {
                let detail = format!("{PATH}{below} is asked with {other}, not {method}");
                Problem::new(ProblemCode::WrongMethod, detail)
            }
            None => {
                let detail = format!("there is no {PATH}{below} at this listener");
                Problem::new(ProblemCode::NoSuchRoute, detail)
            }
        })
    }
}
