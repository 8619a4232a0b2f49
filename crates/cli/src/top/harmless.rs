/// `text` without characters that would drive the operator's terminal: names of failures come from
/// guests, too.
pub(super) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
