//! Metrics that documents name are there.

use crate::documents::{self, place};
use crate::markdown::Page;
use crate::reference::pages;

#[test]
fn every_metric_that_is_named_is_one_of_the_daemon() {
    let page = pages().unwrap().into_iter().find(|page| page.path.ends_with("metrics.md")).unwrap();
    let rows: Vec<&str> = page.text.lines().filter(|line| line.starts_with("| `")).collect();
    let table = rows.join("\n");
    let known: Vec<String> = Page::read(&table).codes.into_iter().map(|(_, code)| code).collect();
    let (mut found, mut wrong) = (0, Vec::new());
    for document in documents::all().unwrap() {
        for (line, code) in document.page.codes.iter().filter(|(_, code)| code.starts_with("plimsoll_")) {
            found += 1;
            if !known.contains(code) {
                wrong.push(format!("{}: {code}", place(&document.path, *line)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found > known.len(), "only {found} were found");
}
