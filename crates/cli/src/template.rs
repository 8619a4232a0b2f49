use std::str::FromStr;

use jiff::Timestamp;
use plimsoll_protocol::status::VmStatus;

use crate::vm_field::VmField;

/// A line for each VM, with `{column}` in the place of facts. `{{` and `}}` are braces, `\t` and
/// `\n` a tab and a new line.
#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Field(VmField),
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if chars.next_if_eq(&'t').is_some() => plain.push('\t'),
                '\\' if chars.next_if_eq(&'n').is_some() => plain.push('\n'),
                '{' | '}' if chars.next_if_eq(&c).is_some() => plain.push(c),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(c) => name.push(c),
                            None => {
                                return Err(format!(
                                    "{{{name} has no end: write {{{name}}}, or {{{{ for a brace"
                                ));
                            }
                        }
                    }
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Field(VmField::named(&name)?));
                }
                '}' => return Err("} without {: write }} for a brace".to_owned()),
                c => plain.push(c),
            }
        }
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }
}

impl Template {
    /// The line for a VM.
    pub(crate) fn line(&self, vm: &VmStatus, now: Timestamp) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => field.value(vm, now),
        };
        self.0.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_words::samples;

    #[test]
    fn facts_take_the_place_of_their_names() {
        let line =
            |text: &str| text.parse::<Template>().unwrap().line(&samples::vm("web1"), Timestamp::UNIX_EPOCH);
        assert_eq!(line("{name} {state}"), "web1 on");
        assert_eq!(line(r"{NAME}\t{size}{{}}"), "web1\t256MiB{}");
        assert_eq!(line(r"\d {labels}"), r"\d env=prod,tier=web");
        assert_eq!(line(""), "");
    }

    #[test]
    fn a_template_that_makes_no_sense_is_refused() {
        for (bad, part) in
            [("{nam}", "there is no column \"nam\": there are name, "), ("{name", "no end"), ("a}", "}}")]
        {
            let error = bad.parse::<Template>().unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
