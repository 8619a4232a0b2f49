//! A page of Markdown, taken apart.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The parts of a page that can be wrong.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) blocks: Vec<Block>,
    /// Code within a line, with the number of its line.
    pub(crate) codes: Vec<(usize, String)>,
    /// Where links and pictures lead, with the number of their line.
    pub(crate) links: Vec<(usize, String)>,
    /// The names by which links find headings.
    pub(crate) headings: Vec<String>,
}

/// A block of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The line of its fence.
    pub(crate) line: usize,
    /// The words behind the fence. The first is the language.
    pub(crate) info: String,
    pub(crate) text: String,
}

impl Page {
    /// Reads a page.
    pub(crate) fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut block: Option<Block> = None;
        let mut heading: Option<String> = None;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = 1 + text[..range.start].matches('\n').count();
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    let info = match kind {
                        CodeBlockKind::Fenced(info) => info.into_string(),
                        CodeBlockKind::Indented => "(indented)".to_owned(),
                    };
                    block = Some(Block { line, info, text: String::new() });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.headings.extend(heading.take().map(|h| name_of(&h))),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push((line, dest_url.into_string()));
                }
                Event::Text(part) => match (&mut block, &mut heading) {
                    (Some(block), _) => block.text.push_str(&part),
                    (None, Some(heading)) => heading.push_str(&part),
                    (None, None) => {}
                },
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    page.codes.push((line, code.into_string()));
                }
                _ => {}
            }
        }
        page
    }
}

/// The name that mdBook and others give a heading.
fn name_of(heading: &str) -> String {
    let part = |c: char| match c {
        c if c.is_alphanumeric() || matches!(c, '_' | '-') => Some(c.to_ascii_lowercase()),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    };
    heading.trim().chars().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_links_headings_and_code_are_found_with_their_lines() {
        let page = Page::read(
            "# A `plimsoll` page, two\n\nSee [b](b.md#c), `plimsoll ps`.\n\n```toml definition\nname = 1\n```\n\n    x\n",
        );
        assert_eq!(page.headings, ["a-plimsoll-page-two"]);
        assert_eq!(page.links, [(3, "b.md#c".to_owned())]);
        assert_eq!(page.codes, [(1, "plimsoll".to_owned()), (3, "plimsoll ps".to_owned())]);
        let block =
            |line, info: &str, text: &str| Block { line, info: info.to_owned(), text: text.to_owned() };
        assert_eq!(page.blocks, [block(5, "toml definition", "name = 1\n"), block(9, "(indented)", "x\n")]);
    }
}
