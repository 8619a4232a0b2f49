use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' own, version 0.0.4: for clients that name none, as is usual.
    Classic,
}

impl Format {
    /// The format that a client with these headers prefers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lists = headers.get_all(ACCEPT).iter().filter_map(|list| list.to_str().ok());
        let ranges = lists.flat_map(|list| list.split(',')).filter_map(range);
        let (mut open, mut classic) = (0.0_f32, 0.0_f32);
        for (media, quality) in ranges {
            match media {
                "application/openmetrics-text" => open = open.max(quality),
                "text/plain" => classic = classic.max(quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= classic { Self::OpenMetrics } else { Self::Classic }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A media range and its quality, from 0 to 1. `None`: a version that this API does not write.
fn range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?;
    let mut quality = 1.0;
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
            Some(("version", value)) if !["0.0.1", "0.0.4", "1.0.0"].contains(&value) => return None,
            _ => {}
        }
    }
    Some((media, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_format_is_chosen() {
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("text/plain, application/openmetrics-text; q=0.9", Format::Classic),
            ("application/openmetrics-text; q=0", Format::Classic),
            ("application/openmetrics-text; version=2.0.0, text/plain; q=0.1", Format::Classic),
            ("text/html, */*; q=0.8", Format::Classic),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(Format::of(&headers), format, "{accept}");
        }
        assert_eq!(Format::of(&HeaderMap::new()), Format::Classic);
    }
}
