//! The page's own files, in the binary.
//!
//! Owns which there are, and how they are sent: compressed where that is taken, and not again
//! where the browser has them. They hold nothing of anybody, and need no token. Invariant: what
//! is here is all that the page loads; `vendor/README.md` says what is not ours.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;
use std::sync::LazyLock;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

macro_rules! assets {
    ($($path:literal: $kind:ident,)+) => {
        /// Path below the page's, kind, content.
        const FILES: &[(&str, &str, &[u8])] =
            &[$(($path, $kind, include_bytes!(concat!("assets/", $path)))),+];
    };
}
assets! {
    "index.html": HTML,
    "page.css": STYLE,
    "icon.svg": PICTURE,
    "js/page.js": SCRIPT,
    "js/here.js": SCRIPT,
    "js/session.js": SCRIPT,
    "js/acts.js": SCRIPT,
    "js/model.js": SCRIPT,
    "js/api.js": SCRIPT,
    "js/lineage.js": SCRIPT,
    "js/plots.js": SCRIPT,
    "js/letters.js": SCRIPT,
    "js/contents.js": SCRIPT,
    "js/orders.js": SCRIPT,
    "js/dialog.js": SCRIPT,
    "js/sections.js": SCRIPT,
    "js/words.js": SCRIPT,
    "vendor/uplot.js": SCRIPT,
    "vendor/uplot.css": STYLE,
    "vendor/lit-html/lit-html.js": SCRIPT,
    "vendor/lit-html/directive.js": SCRIPT,
    "vendor/lit-html/directive-helpers.js": SCRIPT,
    "vendor/lit-html/directives/repeat.js": SCRIPT,
    "vendor/lit-html/directives/live.js": SCRIPT,
}

struct Asset {
    path: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    compressed: Bytes,
    tag: String,
}

/// Compressed when the first is asked for.
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let asset = |&(path, kind, plain): &(&'static str, &'static str, &'static [u8])| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let compressed = encoder.write_all(plain).and_then(|()| encoder.finish());
        let compressed = compressed.expect("memory takes it").into();
        let tag = format!("\"{:016x}\"", crate::progress::letters::digest(plain));
        Asset { path, kind, plain, compressed, tag }
    };
    FILES.iter().map(asset).collect()
});

/// The file at `path`, the page itself for an empty one; `None` where there is none.
pub(super) fn answer(path: &str, headers: &HeaderMap) -> Option<Response> {
    let path = if path.is_empty() { "index.html" } else { path };
    let asset = ASSETS.iter().find(|asset| asset.path == path)?;
    let is = |name: header::HeaderName, fits: &dyn Fn(&str) -> bool| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|one| fits(one.trim())))
    };
    // Each time the browser asks whether it is still this one: a new api has new files.
    let fixed = [(header::ETAG, asset.tag.as_str()), (header::CACHE_CONTROL, "no-cache")];
    let fixed = (fixed, [(header::VARY, "accept-encoding")]);
    if is(header::IF_NONE_MATCH, &|tag| tag == asset.tag) {
        return Some((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    let kind = [(header::CONTENT_TYPE, asset.kind)];
    let takes_gzip = is(header::ACCEPT_ENCODING, &|coding| {
        coding.split(';').next() == Some("gzip") && !coding.ends_with(";q=0")
    });
    Some(if takes_gzip {
        let coding = [(header::CONTENT_ENCODING, "gzip")];
        (fixed, kind, coding, Body::from(asset.compressed.clone())).into_response()
    } else {
        (fixed, kind, Body::from(asset.plain)).into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_together_are_small_and_load_nothing_from_elsewhere() {
        let bytes: usize = ASSETS.iter().map(|asset| asset.compressed.len()).sum();
        assert!(bytes < 64 << 10, "{bytes}");
        for asset in ASSETS.iter().filter(|asset| !asset.path.starts_with("vendor/")) {
            let text = std::str::from_utf8(asset.plain).expect("text");
            let from_elsewhere =
                ["src=\"http", "href=\"http", "url(http", "from \"http", "import(\"http"];
            for way in from_elsewhere {
                assert!(!text.contains(way), "{}: {way}", asset.path);
            }
            for way in ["innerHTML", "unsafeHTML", "eval(", "style=\"", "onclick=\""] {
                assert!(!text.contains(way), "{}: {way}", asset.path);
            }
        }
    }

    #[test]
    fn every_module_that_is_imported_is_there() {
        for asset in ASSETS.iter().filter(|asset| asset.path.starts_with("js/")) {
            let text = std::str::from_utf8(asset.plain).expect("text");
            for import in text.split("from \"").skip(1) {
                let import = import.split('"').next().unwrap();
                let path = match import.strip_prefix("../") {
                    Some(above) => above.to_owned(),
                    None => format!("js/{}", import.trim_start_matches("./")),
                };
                assert!(ASSETS.iter().any(|other| other.path == path), "{}: {import}", asset.path);
            }
        }
    }
}
