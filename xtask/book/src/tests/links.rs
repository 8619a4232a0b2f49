//! Links lead somewhere, and the table of contents has every page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use plimsoll_lab::workspace;

use crate::documents::{self, Document, SOURCES, place};

/// `path` without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Why the link `to` in `from` leads nowhere.
fn broken(from: &Path, to: &str, headings: &BTreeMap<PathBuf, &Vec<String>>) -> Option<String> {
    if to.starts_with("https://") {
        return None;
    }
    let (file, heading) = to.split_once('#').map_or((to, None), |(file, heading)| (file, Some(heading)));
    let path = if file.is_empty() { from.to_owned() } else { plain(&from.parent()?.join(file)) };
    if !workspace::root().join(&path).is_file() {
        return Some(format!("{to}: there is no {}", path.display()));
    }
    // mdBook copies nothing that is not below its sources.
    if from.starts_with(SOURCES) && !path.starts_with(SOURCES) {
        return Some(format!("{to}: that is no page of the book"));
    }
    let heading = heading?;
    let known = headings.get(&path).is_some_and(|headings| headings.iter().any(|name| name == heading));
    (!known).then(|| format!("{to}: there is no such heading"))
}

fn headings(documents: &[Document]) -> BTreeMap<PathBuf, &Vec<String>> {
    documents.iter().map(|document| (document.path.clone(), &document.page.headings)).collect()
}

#[test]
fn every_link_leads_to_a_page_and_its_heading() {
    let documents = documents::all().unwrap();
    let headings = headings(&documents);
    let mut wrong = Vec::new();
    for document in &documents {
        for (line, to) in &document.page.links {
            let why = broken(&document.path, to, &headings);
            wrong.extend(why.map(|why| format!("{}: {why}", place(&document.path, *line))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let pages = Path::new("book/src/tutorial.md");
    for to in ["nowhere.md", "tutorial.md#nowhere", "../../README.md"] {
        assert!(broken(pages, to, &headings).is_some(), "{to}");
    }
}

#[test]
fn the_contents_have_every_page_once() {
    let documents = documents::all().unwrap();
    let contents = Path::new(SOURCES).join("SUMMARY.md");
    let pages: BTreeSet<PathBuf> = documents
        .iter()
        .map(|document| document.path.clone())
        .filter(|path| path.starts_with(SOURCES) && *path != contents)
        .collect();
    let summary = documents.iter().find(|document| document.path == contents).unwrap();
    let mut listed = BTreeSet::new();
    for (line, to) in &summary.page.links {
        assert!(listed.insert(plain(&Path::new(SOURCES).join(to))), "line {line}: {to} is there twice");
    }
    assert_eq!(listed.symmetric_difference(&pages).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
    assert!(pages.len() > 50, "only {} pages", pages.len());
}

#[test]
fn the_readme_leads_to_the_book() {
    let documents = documents::all().unwrap();
    assert!(documents[0].page.links.iter().any(|(_, to)| to == "book/src/SUMMARY.md"));
}
