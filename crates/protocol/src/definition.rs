//! A virtual machine as its operator writes it down.
//!
//! ```toml
//! name = "web1"
//! size = "512MiB"            # guest-physical memory
//! vcpus = 2                  # 1 to 8, default 1
//! reservation = "128MiB"     # machine memory it always has, default none
//! limit = "384MiB"           # machine memory it never exceeds, default its size
//! shares = "normal"          # low, normal, high (5, 10, 20 per MiB of size) or a number
//! pool = "prod"              # the resource pool that it is in, default none: the host itself, "/"
//! tax = 0.5                  # tax on its idle memory, 0 to 0.99, default the host's
//!
//! [memory]
//! sharing = "prod"           # with whom it shares pages: own (itself, the default), zero, off, or a domain's name
//!
//! [boot]
//! kernel = "/srv/vm/vmlinuz" # a bzImage
//! initrd = "/srv/vm/initrd"  # optional
//! cmdline = "console=ttyS0 root=/dev/vda"
//!
//! [[disk]]
//! path = "/srv/vm/web1.raw"
//! read_only = false
//!
//! [[net]]
//! tap = "tap0"
//! mac = "52:54:00:12:34:56"
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use plimsoll_units::{Bytes, CHUNK_SIZE};
use serde::{Deserialize, Serialize};

use crate::pool::Place;
use crate::sharing::Sharing;
use crate::{TaxRate, VmName};

/// Most vCPUs of a VM: what the boot tables and the tests cover.
pub const MAX_VCPUS: u8 = 8;
/// Smallest VM: below it no Debian kernel boots, and the 32-bit boot areas would not fit.
pub const MIN_SIZE: Bytes = Bytes::mib(32);
/// Largest VM: 1 TiB keeps every page count within 32 bits, which the balloon's interface uses.
pub const MAX_SIZE: Bytes = Bytes::mib(1 << 20);
/// Most disks and most network interfaces of a VM: each takes an interrupt line, of which 14 are
/// there for devices.
pub const MAX_DISKS: usize = 8;
/// See [`MAX_DISKS`].
pub const MAX_NETS: usize = 4;
/// Longest kernel command line: what the x86 boot protocol's `cmdline_size` of Debian's kernels
/// allows.
pub const MAX_CMDLINE: usize = 2047;
/// Largest share count: ten times what the largest VM has at high shares.
pub const MAX_SHARES: u64 = 200_000_000;

/// A VM as defined. Obtained with [`VmDefinition::from_toml`], which checks everything that needs
/// no look at the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmDefinition {
    /// Unique on the host.
    pub name: VmName,
    /// Guest-physical memory; a multiple of 2 MiB within [`MIN_SIZE`] and [`MAX_SIZE`].
    pub size: Bytes,
    /// Number of virtual processors, 1 to [`MAX_VCPUS`].
    #[serde(default = "one_vcpu")]
    pub vcpus: u8,
    /// Machine memory that the VM always has; at most its limit.
    #[serde(default)]
    pub reservation: Bytes,
    /// Machine memory that the VM never exceeds; `None`: its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bytes>,
    /// Weight among its siblings.
    #[serde(default)]
    pub shares: Shares,
    /// The resource pool that it is in. Whether there is one of that name, only the daemon knows.
    #[serde(default, skip_serializing_if = "Place::is_root")]
    pub pool: Place,
    /// A tax on its idle memory of its own; `None`: the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<TaxRate>,
    /// How its memory is dealt with.
    #[serde(default, skip_serializing_if = "Memory::is_default")]
    pub memory: Memory,
    /// What its processors offer.
    #[serde(default, skip_serializing_if = "Cpu::is_default")]
    pub cpu: Cpu,
    /// What it runs.
    pub boot: Boot,
    /// Disks, the first is `/dev/vda`.
    #[serde(default, rename = "disk", skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Network interfaces.
    #[serde(default, rename = "net", skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<Net>,
    /// What the balloon device offers.
    #[serde(default)]
    pub balloon: Balloon,
    /// How the VM's process is confined.
    #[serde(default)]
    pub jail: Jail,
}

fn one_vcpu() -> u8 {
    1
}

/// How a VM's memory is dealt with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// With whom it shares pages.
    pub sharing: Sharing,
}

impl Memory {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a VM's processors offer beside what every VM has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cpu {
    /// The guest may run VMs of its own (VMX, SVM), where the host's KVM can. It reaches the most
    /// intricate part of KVM that way, so it is off unless asked for.
    pub nested: bool,
}

impl Cpu {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a VM runs: a kernel, or a model of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// A bzImage. Required unless `model` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// An initial ram disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[serde(default = "default_cmdline")]
    pub cmdline: String,
    /// No guest kernel at all: a host thread touches the VM's memory through the same pmap and
    /// speaks the toucher's language on the console. For hosts without usable KVM; never a real
    /// guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub model: bool,
}

fn default_cmdline() -> String {
    "console=ttyS0 reboot=acpi panic=-1".to_owned()
}

/// A disk: a raw file or a block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Where it is on the host.
    pub path: PathBuf,
    /// The guest may not write it; it may then be shared by several VMs.
    #[serde(default)]
    pub read_only: bool,
}

/// A network interface backed by a tap device that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Name of the tap device.
    pub tap: String,
    /// The guest's address; `None`: made from the VM's name, so that it stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
}

/// What the balloon device offers the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Balloon {
    /// The guest may take memory back from the balloon before its OOM killer runs.
    pub deflate_on_oom: bool,
    /// The guest reports free memory in large units, which is given back at once.
    pub free_page_reporting: bool,
}

impl Default for Balloon {
    fn default() -> Self {
        Self { deflate_on_oom: true, free_page_reporting: true }
    }
}

/// How the VM's process is confined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jail {
    /// Parts of the jail that the VM may run without where the host does not have them. A missing
    /// part that is not named here keeps the VM from starting.
    pub allow_missing: Vec<JailPart>,
}

/// A part of the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JailPart {
    /// A user and group of the VM's own.
    Uid,
    /// A closed view of the file system.
    Filesystem,
    /// A filter of system calls.
    Seccomp,
    /// A control group of its own (cgroup v2).
    Cgroup,
}

impl fmt::Display for JailPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uid => "uid",
            Self::Filesystem => "filesystem",
            Self::Seccomp => "seccomp",
            Self::Cgroup => "cgroup",
        })
    }
}

/// Weight of a VM, in words or as a number from 1 to [`MAX_SHARES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "SharesText", try_from = "SharesText")]
pub enum Shares {
    /// 5 per MiB of size.
    Low,
    /// 10 per MiB of size.
    #[default]
    Normal,
    /// 20 per MiB of size.
    High,
    /// This many.
    Custom(u64),
}

/// [`Shares`] as written: a word or a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum SharesText {
    Number(u64),
    Word(String),
}

impl Shares {
    /// The number of shares of a VM of `size`; at least 1.
    pub fn resolve(self, size: Bytes) -> u64 {
        let per_mib = match self {
            Self::Low => 5,
            Self::Normal => 10,
            Self::High => 20,
            Self::Custom(shares) => return shares,
        };
        (per_mib * (size.0 >> 20)).max(1)
    }

    /// Checks a number of shares that was not read from a text.
    pub(crate) fn check(self) -> Result<(), DefinitionError> {
        match self {
            Self::Custom(n) if !(1..=MAX_SHARES).contains(&n) => {
                Err(DefinitionError(format!("shares {n}: 1 to {MAX_SHARES} are possible")))
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = || text.parse().ok().filter(|n| (1..=MAX_SHARES).contains(n)).map(Self::Custom);
        match text {
            "low" => Ok(Self::Low),
            "normal" => Ok(Self::Normal),
            "high" => Ok(Self::High),
            _ => number().ok_or_else(|| {
                format!("shares {text:?}: write low, normal, high or a number from 1 to {MAX_SHARES}")
            }),
        }
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Low => f.pad("low"),
            Self::Normal => f.pad("normal"),
            Self::High => f.pad("high"),
            Self::Custom(n) => f.pad(&n.to_string()),
        }
    }
}

impl From<Shares> for SharesText {
    fn from(shares: Shares) -> Self {
        match shares {
            Shares::Custom(n) => Self::Number(n),
            word => Self::Word(word.to_string()),
        }
    }
}

impl TryFrom<SharesText> for Shares {
    type Error = String;

    fn try_from(text: SharesText) -> Result<Self, String> {
        match text {
            SharesText::Number(n) => n.to_string().parse(),
            SharesText::Word(word) => word.parse(),
        }
    }
}

/// A unicast Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// A locally administered address that is always the same for the same VM and interface number.
    pub fn derived(vm: &VmName, index: usize) -> Self {
        // FNV-1a: any spread of names over 40 bits does; it has to stay the same across versions.
        let seed = vm.as_str().bytes().chain(index.to_le_bytes());
        let hash =
            seed.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let [a, b, c, d, e, ..] = hash.to_be_bytes();
        Self([0x52, a, b, c, d, e])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refuse =
            || format!("mac {text:?}: write six bytes such as 52:54:00:12:34:56, the first one even");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(refuse)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() || bytes[0] & 1 == 1 { Err(refuse()) } else { Ok(Self(bytes)) }
    }
}

/// A definition that cannot be used: which field, which value, what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DefinitionError(String);

impl DefinitionError {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }
}

impl VmDefinition {
    /// Reads and checks a definition. Relative paths are taken from `directory`, the definition's
    /// own.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown key, a value out of its bounds: one line that names field
    /// and value.
    pub fn from_toml(text: &str, directory: &Path) -> Result<Self, DefinitionError> {
        let mut definition: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(0, |s| 1 + text.bytes().take(s.start).filter(|&b| b == b'\n').count());
            DefinitionError(format!("line {line}: {}", e.message().lines().collect::<Vec<_>>().join(", ")))
        })?;
        let boot = &mut definition.boot;
        let disks = definition.disks.iter_mut().map(|d| &mut d.path);
        for path in boot.kernel.iter_mut().chain(&mut boot.initrd).chain(disks) {
            *path = directory.join(&*path);
        }
        definition.check()?;
        Ok(definition)
    }

    /// The most machine memory that the VM may have for its guest.
    pub fn limit(&self) -> Bytes {
        self.limit.unwrap_or(self.size).min(self.size)
    }

    /// Checks every bound that needs no look at the host. Whoever takes a definition from elsewhere
    /// (the API) calls it.
    ///
    /// # Errors
    /// The first field that is out of its bounds, in one line.
    pub fn check(&self) -> Result<(), DefinitionError> {
        let fail = |text: String| Err(DefinitionError(text));
        let size = self.size;
        if size < MIN_SIZE || size > MAX_SIZE || !size.0.is_multiple_of(CHUNK_SIZE) {
            return fail(format!(
                "size {size}: a multiple of 2MiB from {MIN_SIZE} to {MAX_SIZE} is possible"
            ));
        }
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS {
            return fail(format!("vcpus {}: 1 to {MAX_VCPUS} are possible", self.vcpus));
        }
        check_bounds(size, self.reservation, self.limit)?;
        self.shares.check()?;
        match (&self.boot.kernel, self.boot.model) {
            (None, false) => return fail("boot.kernel is missing: name a bzImage".to_owned()),
            (Some(kernel), true) => {
                return fail(format!("boot.kernel {}: a model guest has no kernel", kernel.display()));
            }
            _ => {}
        }
        let cmdline = &self.boot.cmdline;
        if cmdline.len() > MAX_CMDLINE || cmdline.contains(|c: char| c.is_control()) || !cmdline.is_ascii() {
            return fail(format!(
                "boot.cmdline of {} bytes: at most {MAX_CMDLINE} printable ASCII characters are possible",
                cmdline.len()
            ));
        }
        if self.disks.len() > MAX_DISKS {
            return fail(format!("{} disks: at most {MAX_DISKS} are possible", self.disks.len()));
        }
        if self.nets.len() > MAX_NETS {
            return fail(format!("{} network interfaces: at most {MAX_NETS} are possible", self.nets.len()));
        }
        for net in &self.nets {
            // IFNAMSIZ is 16 with the terminating zero.
            if net.tap.is_empty() || net.tap.len() > 15 || net.tap.contains(['/', ' ', '\0']) {
                return fail(format!("net.tap {:?}: name a tap device, 1 to 15 characters", net.tap));
            }
        }
        Ok(())
    }
}

/// Checks a reservation and a limit against a VM's size, at definition and when they are changed
/// later.
///
/// # Errors
/// Which bound is broken, by which value.
pub fn check_bounds(size: Bytes, reservation: Bytes, limit: Option<Bytes>) -> Result<(), DefinitionError> {
    if reservation > size {
        return Err(DefinitionError(format!("reservation {reservation} is over the size {size}: lower it")));
    }
    match limit {
        Some(limit) if reservation > limit => Err(DefinitionError(format!(
            "reservation {reservation} is over the limit {limit}: lower one or raise the other"
        ))),
        Some(limit) if limit < MIN_SIZE => {
            Err(DefinitionError(format!("limit {limit}: at least {MIN_SIZE} is needed for a guest to run")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = 'a'\nsize = '256MiB'\n[boot]\nkernel = 'vmlinuz'\n";

    fn error(text: &str) -> String {
        VmDefinition::from_toml(text, Path::new("/d")).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let vm = VmDefinition::from_toml(GOOD, Path::new("/d")).unwrap();
        assert_eq!(vm.limit(), Bytes::mib(256));
        assert_eq!(vm.shares.resolve(vm.size), 2560);
        assert_eq!(vm.boot.kernel.as_deref(), Some(Path::new("/d/vmlinuz")));
        assert!(vm.balloon.deflate_on_oom && vm.balloon.free_page_reporting);
    }

    #[test]
    fn a_definition_survives_toml_and_json() {
        let text = format!(
            "vcpus = 2\nshares = 'high'\npool = 'p'\ntax = 0.5\n{GOOD}[memory]\nsharing = 'prod'\n[[net]]\ntap = 't0'\nmac = '52:54:00:00:00:01'\n"
        );
        let vm = VmDefinition::from_toml(&text, Path::new("/d")).unwrap();
        let again = VmDefinition::from_toml(&toml::to_string(&vm).unwrap(), Path::new("/")).unwrap();
        assert_eq!(vm, again);
        assert_eq!(vm, serde_json::from_str(&serde_json::to_string(&vm).unwrap()).unwrap());
    }

    #[test]
    fn every_error_names_the_field_and_fits_a_line() {
        let cases = [
            (format!("colour = 1\n{GOOD}"), "line 1: unknown field `colour`"),
            (GOOD.replace("size", "sise"), "line 2: unknown field `sise`"),
            (GOOD.replace("256MiB", "255KiB"), "255KiB"),
            (GOOD.replace("256MiB", "257MiB1"), "257MiB1"),
            (GOOD.replace("256MiB", "33MiB"), "33MiB"),
            (format!("vcpus = 9\n{GOOD}"), "vcpus 9"),
            (format!("vcpus = 0\n{GOOD}"), "vcpus 0"),
            (format!("reservation = '257MiB'\n{GOOD}"), "reservation 257MiB"),
            (format!("reservation = '128MiB'\nlimit = '64MiB'\n{GOOD}"), "limit 64MiB"),
            (format!("shares = 0\n{GOOD}"), "shares \"0\""),
            (format!("shares = 'lots'\n{GOOD}"), "lots"),
            (GOOD.replace("kernel = 'vmlinuz'", ""), "boot.kernel"),
            (format!("{GOOD}model = true\n"), "model"),
            (format!("{GOOD}cmdline = '{}'\n", "x".repeat(2048)), "boot.cmdline"),
            (format!("{GOOD}[[net]]\ntap = ''\n"), "net.tap"),
            (format!("{GOOD}[[net]]\ntap = 't'\nmac = '01:00:00:00:00:00'\n"), "mac"),
            (GOOD.replace("'a'", "'../a'"), "../a"),
            (format!("pool = 'a/b'\n{GOOD}"), "a/b"),
            (format!("{GOOD}[memory]\nsharing = 'a/b'\n"), "a/b"),
            (format!("tax = 1.0\n{GOOD}"), "tax 1"),
            (format!("tax = nan\n{GOOD}"), "tax NaN"),
            (format!("tax = -0.5\n{GOOD}"), "tax -0.5"),
        ];
        for (text, part) in cases {
            let error = error(&text);
            assert!(error.contains(part), "{part}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_derived_mac_is_stable_unicast_and_local() {
        let vm: VmName = "web1".parse().unwrap();
        let mac = MacAddress::derived(&vm, 0);
        assert_eq!(mac, MacAddress::derived(&vm, 0));
        assert_ne!(mac, MacAddress::derived(&vm, 1));
        assert_eq!(mac.0[0] & 0b11, 0b10);
    }
}
