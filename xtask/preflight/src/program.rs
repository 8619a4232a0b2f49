//! Where programs are.

use std::env;
use std::path::PathBuf;

/// The path of `program`, in PATH or where Debian keeps administrators' programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).map(|directory| directory.join(program)).find(|file| file.is_file())
}
