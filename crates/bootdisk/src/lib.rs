//! What a disk says that is to be booted from it: kernel, initrd, command line, out of the
//! configuration of its boot loader.
//!
//! [`find()`] reads the partition table, opens the file systems that it knows, and follows the boot
//! loaders' configurations in this order: GRUB as an EFI system partition names it, GRUB's
//! `grub.cfg`, entries of the Boot Loader Specification, extlinux.
//!
//! | part | understood |
//! |---|---|
//! | partition table | GPT, MBR with logical partitions, none: the whole disk is a file system |
//! | file system | ext2, ext3, ext4 with its journal, FAT; others are named in errors |
//! | GRUB | the script language as `grub-mkconfig` uses it, `grubenv`, `blscfg` |
//! | Boot Loader Specification | type 1 entries, in the order that it defines |
//! | extlinux, syslinux | labels and their default |
//!
//! Nothing is ever written: an entry that GRUB would boot once only (`grub-reboot`) is not chosen,
//! because it would be chosen again each time.
//!
//! The author of the disk is taken for hostile. Counts, lengths, depths, links and the bytes that
//! are read in all are bounded; the bounds stand where they are held. This crate knows no virtual
//! machines and makes no system call of its own: it reads through [`Source`].

mod bls;
mod disk;
mod env_block;
mod extlinux;
mod find;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod grub;
mod partition;
mod table;
mod version;
mod volume;

#[cfg(test)]
mod tests;

pub use disk::{BLOCK, Source};
pub use find::{Boot, File, MAX_CMDLINE, MAX_FILE, NothingFound, find};
