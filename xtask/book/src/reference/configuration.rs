use super::Page;

/// The file that packages install.
const EXAMPLE: &str = include_str!("../../../../packaging/plimsolld.toml");

/// The page of the daemon's configuration: the annotated file, by its sections.
pub(super) fn page() -> Page {
    let mut body = String::from(
        "The package installs this file as `/etc/plimsoll/plimsolld.toml`. A test holds its keys and defaults against\n\
         the code.\n\n```toml configuration\n",
    );
    let mut block = Vec::new();
    for line in EXAMPLE.lines() {
        match line.strip_prefix("## ") {
            Some(heading) => {
                close(&mut body, &mut block);
                body += &format!("## {}\n\n```toml configuration\n", heading.trim_end_matches('#').trim());
            }
            None => block.push(line),
        }
    }
    close(&mut body, &mut block);
    Page::new("configuration.md", "Configuration of plimsolld", &body)
}

/// Ends the block, without empty lines around its lines.
fn close(body: &mut String, block: &mut Vec<&str>) {
    *body += block.join("\n").trim_matches('\n');
    *body += "\n```\n\n";
    block.clear();
}
