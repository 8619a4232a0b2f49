/// `text` without control characters, which could drive the operator's terminal: names of failures
/// come from guests, too.
pub(super) fn without_controls(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
