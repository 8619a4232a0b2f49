//! Pages that are made of the code.
//!
//! | page | is made of |
//! |---|---|
//! | [`command_line`] | the definitions of the command lines |
//! | [`exit_status`] | the help of `plimsoll` |
//! | [`configuration`] | the annotated configuration that packages install |
//! | [`definition`] | the manual of definitions in the protocol's docs, and the bounds |
//! | [`api`] | the tables in the protocol's docs |
//! | [`metrics`] | what `/metrics` says of its metrics |
//! | [`states`] | the policy's thresholds and mechanisms |

mod api;
mod command_line;
mod configuration;
mod definition;
mod exit_status;
mod metrics;
mod states;

use anyhow::Result;

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its path below the directory of pages.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Page {
    /// A page of `body` below `title`.
    fn new(path: &str, title: &str, body: &str) -> Self {
        let text = format!(
            "<!-- Made of the code by `cargo xtask book`: what is changed here is lost. -->\n\n# {title}\n\n{}\n",
            body.trim_end()
        );
        Self { path: format!("reference/{path}"), text }
    }
}

/// All pages.
///
/// # Errors
/// A part of the code that is not as it was.
pub(crate) fn pages() -> Result<Vec<Page>> {
    let mut pages = command_line::pages();
    pages.push(exit_status::page()?);
    pages.push(configuration::page());
    pages.push(definition::page()?);
    pages.push(api::page()?);
    pages.push(metrics::page()?);
    pages.push(states::page());
    Ok(pages)
}

/// The text of the docs with which a file of code begins.
fn docs(source: &str) -> Vec<&str> {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect()
}
