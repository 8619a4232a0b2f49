use std::path::Path;

use plimsoll_machine::Reading;
use plimsoll_machine::limit::Limit;

use super::{Check, read};

/// Mappings that do not limit a VM in practice: an isolated shared page costs two, so this many let
/// 128 Ki pages (512 MiB) of a VM be shared one by one. Lower, sharing stops early; higher only
/// costs kernel memory where it is used.
const ENOUGH_MAPPINGS: u64 = 262_144;

/// Whether a control group leaves VMs less memory than the machine has.
pub(super) fn limit() -> Check {
    let reading = Reading::take(Path::new("/proc")).ok();
    judge_limit(reading.as_ref().and_then(Reading::smallest_limit))
}

fn judge_limit(limit: Option<&Limit>) -> Check {
    let name = "memory-limit";
    match limit {
        None => Check::ok(name, "no control group limits memory"),
        Some(Limit { group, most, available, .. }) => Check::limited(
            name,
            format!("control group {} limits memory to {most}, {available} of it is left", group.display()),
            "plimsolld started here divides no more than that among VMs",
            "raise memory.max and memory.high of that group (systemd: MemoryMax, MemoryHigh; a container: its memory limit)",
        ),
    }
}

/// Whether large chunks can be huge pages.
pub(super) fn huge_pages() -> Check {
    judge_huge_pages(read("/sys/kernel/mm/transparent_hugepage/enabled").as_deref())
}

fn judge_huge_pages(enabled: Option<&str>) -> Check {
    let name = "huge-pages";
    let means = "guests run on small pages: their faults and page tables cost more";
    // The file shows all modes, the one in force in brackets.
    let mode = enabled.and_then(|text| text.split_once('[')).and_then(|(_, rest)| rest.split_once(']'));
    match mode.map(|(mode, _)| mode) {
        Some(mode @ ("always" | "madvise")) => Check::ok(name, format!("transparent huge pages: {mode}")),
        Some(mode) => Check::limited(
            name,
            format!("transparent huge pages: {mode}"),
            means,
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        None => Check::limited(
            name,
            "no transparent huge pages",
            means,
            "use a kernel with CONFIG_TRANSPARENT_HUGEPAGE",
        ),
    }
}

/// Whether a VMM may have mappings enough to share many pages.
pub(super) fn map_count() -> Check {
    judge_map_count(read("/proc/sys/vm/max_map_count").and_then(|text| text.parse().ok()))
}

fn judge_map_count(count: Option<u64>) -> Check {
    let name = "map-count";
    match count {
        Some(count) if count >= ENOUGH_MAPPINGS => Check::ok(name, format!("vm.max_map_count is {count}")),
        count => {
            let found = count
                .map_or("vm.max_map_count is unknown".to_owned(), |c| format!("vm.max_map_count is {c}"));
            Check::limited(
                name,
                found,
                "VMs run; few single pages of each can be shared",
                &format!("sysctl vm.max_map_count={ENOUGH_MAPPINGS}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn the_mode_in_force_is_the_one_in_brackets() {
        for (text, verdict) in [
            (Some("[always] madvise never"), Verdict::Ok),
            (Some("always [madvise] never"), Verdict::Ok),
            (Some("always madvise [never]"), Verdict::Limited),
            (Some("garbage"), Verdict::Limited),
            (None, Verdict::Limited),
        ] {
            assert_eq!(judge_huge_pages(text).verdict, verdict, "{text:?}");
        }
    }

    #[test]
    fn a_limit_is_named_with_its_group() {
        use plimsoll_units::Bytes;
        let (most, available) = (Bytes::mib(600), Bytes::mib(500));
        let limit = Limit { group: "/g/a".into(), most, available, held: Bytes::ZERO };
        let check = judge_limit(Some(&limit));
        assert_eq!(check.verdict, Verdict::Limited);
        assert_eq!(check.found, "control group /g/a limits memory to 600MiB, 500MiB of it is left");
        assert_eq!(judge_limit(None).verdict, Verdict::Ok);
    }

    #[test]
    fn the_default_map_count_limits_sharing() {
        assert_eq!(judge_map_count(Some(65_530)).verdict, Verdict::Limited);
        assert_eq!(judge_map_count(Some(1_048_576)).verdict, Verdict::Ok);
        assert_eq!(judge_map_count(None).verdict, Verdict::Limited);
    }
}
