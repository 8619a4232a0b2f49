//! What a command line needs of this machine.

#[cfg(test)]
mod tests;

use std::env;
use std::path::PathBuf;

use crate::kernel::Version;
use crate::packages::{self, Tool};
use crate::space::Place;
use crate::{Size, cache, cargo, deb};

/// Memory of the lab, which depends on what runs in it.
pub mod lab_memory {
    use crate::Size;

    /// Unless another size is asked for.
    pub const USUAL: Size = Size::gib(3);
    /// Figure 2: seven guests, and their disks.
    pub const FIG2: Size = Size::gib(5);
    /// Figure 4: both fleets, and the processes of their VMs.
    pub const FIG4: Size = Size::gib(6);
    /// Figure 5: the largest fleet, and the processes of its VMs.
    pub const FIG5: Size = Size::gib(4);
    /// Figure 6: the guest in its largest step.
    pub const FIG6: Size = Size::gib(2);
    /// Figure 7: both guests and their disks.
    pub const FIG7: Size = Size::gib(3);
}

/// The steps of `cargo xtask test` that look at the source and need no lab.
pub const SOURCE_STEPS: &[&str] = &[
    "format",
    "lint",
    "lint-model",
    "lint-fuzz",
    "doc",
    "unit",
    "counters",
    "model",
    "fuzz",
    "images",
    "prometheus",
    "package",
];

/// System tests whose guests boot the Debian disk.
pub const DISK_SCENARIOS: &[&str] = &["disk", "boot-disk"];

/// System tests whose guests boot Debian's cloud image. They run only by name.
pub const CLOUD_SCENARIOS: &[&str] = &["cloud-image"];

/// The built files of xtask and the programs: 0.9 GiB.
const BUILT: Size = Size::mib(1024);

/// The same, and those of lints, tests and documentation.
const BUILT_FOR_TESTS: Size = Size::gib(6);

/// The built files of xtask and the fuzz targets: 1.5 GiB.
const BUILT_FOR_FUZZING: Size = Size::gib(2);

/// Kernels, images of guests and lab: 0.3 GiB. Older images stay for an hour.
const CACHED: Size = Size::mib(512);

/// The same, and a Debian disk.
const CACHED_FOR_TESTS: Size = Size::mib(1536);

/// The same, and Debian's cloud image, which is a raw disk while it is made.
const CACHED_FOR_CLOUD: Size = Size::gib(3);

/// Copies of a directory for the lab: a Debian disk, while the lab runs.
const TEMPORARY: Size = Size::gib(1);

/// The files of the cloud image while it is made, or its copies for the lab and its guest.
const TEMPORARY_FOR_CLOUD: Size = Size::gib(3);

/// Guests without the lab: the demo's budget, and the processes.
const GUESTS: Size = Size::mib(768);

/// Scenarios with model guests: the kill campaign's budget, its swap space in memory, and the
/// processes.
const MODELS: Size = Size::gib(1);

/// Which way to `userfaultfd` is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Userfaultfd {
    /// None.
    #[default]
    Unused,
    /// The device, which the daemon opens for its VMs.
    Device,
}

/// What a command line needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Programs.
    pub(crate) tools: Vec<Tool>,
    /// Debian's kernels.
    pub(crate) kernels: Vec<Version>,
    /// Debian's packages, as files.
    pub(crate) debs: Vec<&'static str>,
    /// apt's lists of Debian's archives, for building a disk.
    pub(crate) archives: bool,
    /// The newest kernels and packages, though the cache has some.
    pub(crate) newest: bool,
    /// Cargo's components.
    pub(crate) components: bool,
    /// Memory that one process uses, and what it is for.
    pub(crate) memory: Option<(&'static str, Size)>,
    /// Guest memory on this machine itself.
    pub(crate) userfaultfd: Userfaultfd,
    built: Size,
    cached: Size,
    temporary: Size,
}

impl Needs {
    /// What `cargo xtask` with `arguments` needs; `None` where that is nothing or not known here.
    /// `kvm` says whether this machine's KVM can run guests.
    pub fn of(arguments: &[String], kvm: bool) -> Option<Self> {
        let line = Line::of(arguments)?;
        match line.verb {
            "demo" if line.has("--model") => Some(Self::here()),
            "demo" if kvm && !line.has("--lab") => Some(Self {
                tools: packages::GUESTS.to_vec(),
                kernels: Version::ALL.to_vec(),
                cached: CACHED,
                ..Self::here()
            }),
            "demo" => Some(Self::lab(lab_memory::USUAL)),
            "lab" if line.has("--attach") => None,
            "lab" => {
                let asked = line.value("--memory").and_then(Size::parse);
                Some(Self::lab(asked.unwrap_or(lab_memory::USUAL)))
            }
            "setup" => {
                let newest = line.has("--refresh");
                Some(Self { memory: None, newest, ..Self::lab(Size(0)).with_disk() })
            }
            "campaign" => Some(Self { memory: Some(("the campaign", MODELS)), ..Self::here() }),
            "paper" => Self::paper(&line),
            "package" => Some(Self {
                tools: packages::PACKAGE.to_vec(),
                built: BUILT,
                cached: CACHED,
                ..Self::default()
            }),
            "fuzz" if line.has("--list") => None,
            "fuzz" => Some(Self::fuzz()),
            "test" => Self::test(&line),
            _ => None,
        }
    }

    /// Guests on this machine, without the lab.
    fn here() -> Self {
        let memory = Some(("the guests", GUESTS));
        Self { memory, userfaultfd: Userfaultfd::Device, built: BUILT, ..Self::default() }
    }

    /// A lab with `memory`.
    fn lab(memory: Size) -> Self {
        Self {
            tools: packages::LAB.to_vec(),
            kernels: Version::ALL.to_vec(),
            memory: Some(("the lab", memory)),
            built: BUILT,
            cached: CACHED,
            ..Self::default()
        }
    }

    /// The same with a Debian disk.
    fn with_disk(mut self) -> Self {
        self.tools.extend(packages::DISK.iter().filter(|tool| !packages::LAB.contains(tool)));
        self.archives = true;
        self.cached = CACHED_FOR_TESTS;
        self.temporary = TEMPORARY;
        self
    }

    /// The same with Debian's cloud image.
    fn with_cloud_image(self) -> Self {
        let mut needs = if self.archives { self } else { self.with_disk() };
        needs.tools.extend(packages::CLOUD_IMAGE);
        Self { cached: CACHED_FOR_CLOUD, temporary: TEMPORARY_FOR_CLOUD, ..needs }
    }

    /// The fuzz targets, two processes of them.
    fn fuzz() -> Self {
        Self { tools: packages::FUZZ.to_vec(), built: BUILT_FOR_FUZZING, ..Self::here() }
    }

    /// The same with what makes the Debian package, and a Debian disk to install it in.
    fn with_package(mut self) -> Self {
        self.tools.extend(packages::PACKAGE);
        self.kernels = Version::ALL.to_vec();
        if self.archives { self } else { self.with_disk() }
    }

    fn paper(line: &Line<'_>) -> Option<Self> {
        if line.has("--simulated") {
            return None;
        }
        let figure = |memory, debs: &[&'static str]| {
            let temporary = if debs.is_empty() { Size(0) } else { TEMPORARY };
            Some(Self { debs: debs.to_vec(), temporary, ..Self::lab(memory) })
        };
        match line.words().find(|word| word.starts_with("fig"))? {
            "fig2" => figure(lab_memory::FIG2, deb::DBENCH),
            "fig4" => figure(lab_memory::FIG4, deb::DEBIAN),
            "fig5" => figure(lab_memory::FIG5, deb::DEBIAN),
            "fig6" => figure(lab_memory::FIG6, &[]),
            "fig7" => figure(lab_memory::FIG7, deb::DBENCH),
            _ => None,
        }
    }

    fn test(line: &Line<'_>) -> Option<Self> {
        if line.has("--list") {
            return None;
        }
        let only: Vec<&str> = line.values("--only").collect();
        let source = only.iter().filter(|name| SOURCE_STEPS.contains(name)).count();
        let scenarios = only.is_empty() || source < only.len();
        let needs = if scenarios && !line.has("--no-lab") {
            let lab = Self::lab(lab_memory::USUAL);
            let disk = only.is_empty() || only.iter().any(|name| DISK_SCENARIOS.contains(name));
            let lab = if disk { lab.with_disk() } else { lab };
            if only.iter().any(|name| CLOUD_SCENARIOS.contains(name)) { lab.with_cloud_image() } else { lab }
        } else {
            Self { memory: Some(("tests", MODELS)), ..Self::default() }
        };
        // Tests of guest memory use it here. Most scenarios use it in the lab only.
        let memory = only.is_empty()
            || ["unit", "counters", "fuzz", "prometheus"].iter().any(|name| only.contains(name));
        let userfaultfd = if memory { Userfaultfd::Device } else { Userfaultfd::Unused };
        let components =
            only.is_empty() || only.iter().any(|name| *name == "format" || name.starts_with("lint"));
        let built = if only.is_empty() || source > 0 { BUILT_FOR_TESTS } else { BUILT };
        let mut tools = needs.tools;
        if only.is_empty() || only.contains(&"fuzz") {
            tools.extend(packages::FUZZ);
        }
        if only.is_empty() || only.contains(&"unit") {
            tools.extend(packages::UNIT.iter().filter(|tool| !tools.contains(tool)).collect::<Vec<_>>());
        }
        if only.is_empty() || only.contains(&"images") {
            tools.extend(packages::IMAGES);
        }
        let mut debs = needs.debs;
        if only.is_empty() || only.contains(&"prometheus") {
            debs.extend(deb::PROMETHEUS);
        }
        let needs = Self { components, built, userfaultfd, tools, debs, ..needs };
        Some(if only.is_empty() || only.contains(&"package") { needs.with_package() } else { needs })
    }

    /// The directories that are written to.
    pub(crate) fn places(&self) -> anyhow::Result<Vec<Place>> {
        let mut places = Vec::new();
        let mut add = |what, path: PathBuf, size: Size| {
            if size > Size(0) {
                places.push(Place { what, path, size });
            }
        };
        if self.cached > Size(0) {
            add("the cache", cache::directory()?, self.cached);
        }
        // Without a known directory of built files there is nothing to look at.
        if let Some(target) = cargo::target() {
            add("cargo's built files", target, self.built);
        }
        // Other programs' files there are not ours: all of it is needed.
        add("temporary files", env::temp_dir().join("plimsoll"), self.temporary);
        Ok(places)
    }
}

/// A command line. Only what decides needs is read; `xtask` reads and checks all of it.
struct Line<'a> {
    verb: &'a str,
    options: &'a [String],
}

impl<'a> Line<'a> {
    /// `None` where it asks for help or names no command.
    fn of(arguments: &'a [String]) -> Option<Self> {
        let end = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
        let (verb, options) = arguments[..end].split_first()?;
        let line = Self { verb, options };
        (!line.has("--help") && !line.has("-h")).then_some(line)
    }

    fn words(&self) -> impl Iterator<Item = &'a str> {
        self.options.iter().map(String::as_str)
    }

    fn has(&self, option: &str) -> bool {
        self.words().any(|word| word == option)
    }

    /// What follows `option`, as often as it is there.
    fn values(&self, option: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().enumerate().filter_map(move |(index, word)| match word.strip_prefix(option)? {
            "" => self.options.get(index + 1).map(String::as_str),
            rest => rest.strip_prefix('='),
        })
    }

    fn value(&self, option: &'a str) -> Option<&'a str> {
        self.values(option).last()
    }
}
