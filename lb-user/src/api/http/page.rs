//! `/`: the page. One file of HTML with its style and its script in it, and no other asset: it works without a network.
//!
//! The browser is told to run nothing else: the Content-Security-Policy names the two by their hash.

use std::sync::LazyLock;

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::digest::{SHA256, digest};

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &[&str] =
    &[include_str!("page/format.js"), include_str!("page/drawing.js"), include_str!("page/charts.js"), include_str!("page/page.js")];

/// The page and its policy, made once.
static PAGE: LazyLock<(String, String)> = LazyLock::new(|| {
    let script = format!("\"use strict\";\n(() => {{\n{}}})();\n", SCRIPT.concat());
    let html = FRAME.replace("/* page.css */", STYLE).replace("/* page.js */", &script);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash(&script),
        hash(STYLE)
    );
    (html, policy)
});

/// As a policy names an inline script or style.
pub(super) fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// The page with its headers.
pub(super) async fn page() -> Response {
    let (html, policy) = &*PAGE;
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let mut response = (fixed.map(|(name, value)| (name, HeaderValue::from_static(value))), html.as_str()).into_response();
    // Base64 and words: it is a header's value.
    if let Ok(policy) = HeaderValue::from_str(policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}
