//! Images against a model, through crashes.

mod chains;
mod compression;
mod faults;
mod formats;
mod grow;
mod hostile;
mod model;
mod threads;

use crate::beneath::Beneath;
use crate::create::create;
use crate::format::Format;
use crate::header::Backing;
use crate::image::{Image, Raw};
use crate::memory::Memory;
use crate::qcow2::Qcow2;

/// Bytes of a disk that is not a whole number of clusters.
const SIZE: u64 = 6 * 32768 + 512;
const CLUSTER: u64 = 4096;

/// An empty image, a change of `backing` where there is one.
fn made(backing: Option<&Memory>) -> Memory {
    made_with(CLUSTER, backing)
}

fn made_with(cluster: u64, backing: Option<&Memory>) -> Memory {
    let storage = Memory::default();
    let named = Backing { name: "base.raw".to_owned(), format: Some(Format::Raw) };
    create(&storage, SIZE, cluster, backing.map(|_| &named)).unwrap();
    storage
}

fn opened(storage: &Memory, backing: Option<&Memory>) -> Qcow2<Memory> {
    let image = |backing: &Memory| Box::new(Image::Raw(Raw::new(backing.clone()).unwrap()));
    let backing = backing.map(|backing| image(backing) as Box<dyn Beneath>);
    Qcow2::open(storage.clone(), true, backing).unwrap()
}
