//! The web page: what the host does, on one screen, in a browser.
//!
//! Its files are in the program, and it fetches nothing from elsewhere. It asks the same API as
//! every other client, shows the token that its user gives it, and changes nothing. The files
//! themselves are no secret: they are answered without a token.

mod headers;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The page's files: path, type and content.
const FILES: [(&str, &str, &str); 13] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/api.js", SCRIPT, include_str!("page/api.js")),
    ("/bar.js", SCRIPT, include_str!("page/bar.js")),
    ("/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/events.js", SCRIPT, include_str!("page/events.js")),
    ("/format.js", SCRIPT, include_str!("page/format.js")),
    ("/one.js", SCRIPT, include_str!("page/one.js")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/states.js", SCRIPT, include_str!("page/states.js")),
    ("/vms.js", SCRIPT, include_str!("page/vms.js")),
];
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page's files. They are to be added beside the API, outside of what asks for a token.
pub(crate) fn page() -> Router {
    let files = FILES.iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(async move || file(kind, content)))
    });
    files.layer(from_fn(headers::guard))
}

/// Path and type of each of the page's files.
pub(crate) fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().map(|(path, kind, _)| (*path, *kind))
}

fn file(kind: &'static str, content: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_page_loads_is_there_and_nothing_from_elsewhere() {
        let named = |content: &str| -> Vec<String> {
            let parts = content.split('"').skip(1).step_by(2);
            parts.filter(|part| part.ends_with(".js") || part.ends_with(".css")).map(str::to_owned).collect()
        };
        let mut loaded = std::collections::BTreeSet::new();
        for (_, _, content) in FILES {
            for name in named(content) {
                let path = format!("/{}", name.trim_start_matches("./"));
                assert!(FILES.iter().any(|(there, ..)| **there == path), "{name}");
                loaded.insert(path);
            }
            // Names of XML's languages are no places to fetch from.
            let elsewhere = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http:") && !elsewhere.contains("https:"), "{content}");
            assert!(!content.contains("innerHTML") && !content.contains("style=\""), "{content}");
        }
        let not = FILES.iter().filter(|(path, ..)| path.ends_with(".js") && !loaded.contains(*path));
        assert_eq!(not.count(), 0, "a file that nothing loads");
    }
}
