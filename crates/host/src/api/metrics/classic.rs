/// The text of OpenMetrics in Prometheus' own text format, version 0.0.4.
///
/// There a counter is named as its samples are, with `_total`, information is a gauge, and units
/// are a part of names only.
pub(super) fn classic(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    // The meaning comes first, the type, which decides the name, after it.
    let mut help = "";
    for line in open.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.extend([line, "\n"]);
            continue;
        };
        match comment.split_once(' ') {
            Some(("HELP", meaning)) => help = meaning.split_once(' ').map_or("", |(_, meaning)| meaning),
            Some(("TYPE", family)) => {
                let (name, kind) = family.split_once(' ').unwrap_or((family, "untyped"));
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    _ => ("", kind),
                };
                text.extend(["# HELP ", name, suffix, " ", help, "\n# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_as_their_samples_are() {
        let open = "# HELP a_bytes What a is\n# TYPE a_bytes gauge\n# UNIT a_bytes bytes\na_bytes{vm=\"x\"} 1\n\
                    # HELP b_seconds What b is\n# TYPE b_seconds counter\n# UNIT b_seconds seconds\nb_seconds_total 1.5\n\
                    # HELP c What c is\n# TYPE c info\nc_info{pool=\"/\"} 1\n# EOF\n";
        let expected = "# HELP a_bytes What a is\n# TYPE a_bytes gauge\na_bytes{vm=\"x\"} 1\n\
                        # HELP b_seconds_total What b is\n# TYPE b_seconds_total counter\nb_seconds_total 1.5\n\
                        # HELP c_info What c is\n# TYPE c_info gauge\nc_info{pool=\"/\"} 1\n";
        assert_eq!(classic(open), expected);
    }
}
