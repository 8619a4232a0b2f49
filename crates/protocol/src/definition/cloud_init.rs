use std::path::PathBuf;

use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::error::DefinitionError;

/// What cloud-init in the guest is told: a NoCloud seed, made at each start and shown as one more
/// read-only disk, the last.
///
/// Files are given to the guest as they are. Without them the seed is made of the short keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct CloudInit {
    /// A file for the guest's `user-data`; excludes the keys of users and packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<PathBuf>,
    /// A file for `meta-data`; excludes `hostname` and `instance_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<PathBuf>,
    /// A file for `network-config`; `None`: cloud-init asks for addresses by DHCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_config: Option<PathBuf>,
    /// The guest's host name; `None`: the VM's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// cloud-init runs once for each; `None`: one that changes with the seed's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Public keys that log the image's default user in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_authorized_keys: Vec<String>,
    /// The hash of the default user's password, as crypt(5) has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// Packages that the guest installs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
}

/// Largest file of a seed. Clouds allow 16 KiB of user data; this leaves room for programs in it.
pub const MAX_SEED_FILE: Bytes = Bytes(128 << 10);
/// Largest seed, which is what its VM is charged for it: three files, and the file system that they
/// are in.
pub const MAX_SEED: Bytes = Bytes(512 << 10);
/// Most keys, and most packages.
const MAX_ENTRIES: u64 = 64;
/// Bytes of all keys. One of RSA with 8192 bits has 1.4 KB.
const MAX_KEYS: Bytes = Bytes(32 << 10);
/// Longest name of a package, hash of a password, or instance's name.
const MAX_WORD: u64 = 256;
/// Longest host name that Linux takes.
const MAX_HOSTNAME: usize = 64;

impl CloudInit {
    /// The files that it names, with their keys.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let files = [
            ("cloud_init.user_data", &self.user_data),
            ("cloud_init.meta_data", &self.meta_data),
            ("cloud_init.network_config", &self.network_config),
        ];
        files.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)))
    }

    /// The paths of these files.
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.user_data, &mut self.meta_data, &mut self.network_config].into_iter().flatten()
    }

    /// Checks its bounds.
    ///
    /// # Errors
    /// What is wrong and what would do, on one line.
    pub(super) fn check(&self) -> Result<(), DefinitionError> {
        let fail = |text: String| Err(DefinitionError::new(text));
        let short =
            !self.ssh_authorized_keys.is_empty() || self.password_hash.is_some() || !self.packages.is_empty();
        if self.user_data.is_some() && short {
            return fail(
                "cloud_init.user_data excludes ssh_authorized_keys, password_hash and packages: write them into that file"
                    .to_owned(),
            );
        }
        if self.meta_data.is_some() && (self.hostname.is_some() || self.instance_id.is_some()) {
            return fail(
                "cloud_init.meta_data excludes hostname and instance_id: write them into that file"
                    .to_owned(),
            );
        }
        if let Some(name) = self.hostname.as_ref().filter(|name| !is_hostname(name)) {
            return fail(format!(
                "cloud_init.hostname {name:?}: must be 1 to {MAX_HOSTNAME} letters, digits, hyphens and dots"
            ));
        }
        if let Some(id) = self.instance_id.as_ref().filter(|id| !is_word(id)) {
            return fail(format!("cloud_init.instance_id {id:?}: {}", what_a_word_is()));
        }
        if let Some(hash) =
            self.password_hash.as_ref().filter(|hash| !is_word(hash) || !hash.starts_with('$'))
        {
            return fail(format!(
                "cloud_init.password_hash of {} bytes: write a hash that begins with $, as mkpasswd prints it",
                hash.len()
            ));
        }
        for (key, entries) in
            [("ssh_authorized_keys", &self.ssh_authorized_keys), ("packages", &self.packages)]
        {
            if entries.len() as u64 > MAX_ENTRIES {
                let count = entries.len();
                return fail(format!(
                    "cloud_init.{key}: {count} are too many: at most {MAX_ENTRIES} are allowed"
                ));
            }
        }
        if let Some(package) = self.packages.iter().find(|name| !is_word(name) || name.starts_with('-')) {
            return fail(format!("cloud_init.packages with {package:?}: {}", what_a_word_is()));
        }
        let printable = |byte: u8| (b' '..=b'~').contains(&byte);
        let is_key = |key: &str| key.contains(' ') && key.bytes().all(printable);
        if let Some(key) = self.ssh_authorized_keys.iter().find(|key| !is_key(key)) {
            let start: String = key.chars().take(20).collect();
            return fail(format!(
                "cloud_init.ssh_authorized_keys with {start:?}: write each public key in one line of ASCII"
            ));
        }
        if self.ssh_authorized_keys.iter().map(|key| key.len() as u64).sum::<u64>() > MAX_KEYS.0 {
            return fail(format!("cloud_init.ssh_authorized_keys: at most {MAX_KEYS} together are allowed"));
        }
        Ok(())
    }
}

/// Letters, digits and hyphens in labels, as RFC 1123 has it.
fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    name.len() <= MAX_HOSTNAME && name.split('.').all(label)
}

fn is_word(word: &str) -> bool {
    (1..=MAX_WORD).contains(&(word.len() as u64)) && word.bytes().all(|byte| byte.is_ascii_graphic())
}

fn what_a_word_is() -> String {
    format!("must be 1 to {MAX_WORD} printable ASCII characters without spaces")
}

/// What a file of the short keys takes beside them: a line's indent, quotes and key.
const AROUND: u64 = 16;

// The largest seed holds the files that are given, and those that the short keys make, of which
// each character may take two.
const _: () = assert!(
    2 * MAX_KEYS.0 + (2 * MAX_ENTRIES + 4) * AROUND + (MAX_ENTRIES + 1) * 2 * MAX_WORD < MAX_SEED_FILE.0
        && 3 * MAX_SEED_FILE.0 + (64 << 10) <= MAX_SEED.0
);
