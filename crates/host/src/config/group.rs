//! Groups of users by name.

use anyhow::{Context, anyhow};

/// The number of the group `name`, which may be a number itself.
///
/// Only `/etc/group` is read: a program without shared libraries cannot ask other sources (LDAP),
/// whose groups have to be named by their numbers.
///
/// # Errors
/// There is no such group, or the file cannot be read.
pub(super) fn number(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").context("socket_group: cannot read /etc/group")?;
    find(&groups, name).ok_or_else(|| {
        anyhow!("socket_group {name}: there is no such group in /etc/group: addgroup --system {name}, or write a number")
    })
}

/// Finds a group in lines such as `name:x:number:members`.
fn find(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_whole_name_or_are_numbers() {
        let groups = "root:x:0:\nplimsolls:x:7:a,b\nplimsoll:x:998:\nbroken\n";
        assert_eq!(find(groups, "plimsoll"), Some(998));
        assert_eq!(find(groups, "plim"), None);
        assert_eq!(find(groups, "broken"), None);
        assert_eq!(number("1234").unwrap(), 1234);
        assert_eq!(number("root").unwrap(), 0);
        assert!(number("no such").unwrap_err().to_string().starts_with("socket_group no such: "));
    }
}
