//! Progress, for the person at the terminal. Results go to standard output, progress does not.

/// Says what comes next.
#[expect(clippy::print_stderr, reason = "progress is for the person at the terminal")]
pub fn step(text: &str) {
    eprintln!("==> {text}");
}

/// Says something about the step under way.
#[expect(clippy::print_stderr, reason = "progress is for the person at the terminal")]
pub fn note(text: &str) {
    eprintln!("    {text}");
}
