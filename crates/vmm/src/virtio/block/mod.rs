//! The disk (VIRTIO 1.2, section 5.2): a raw file, a block device or an image, one queue.
//!
//! Requests run side by side, as many as the queue holds, on an io_uring of the device's own; where
//! that is forbidden they run one after the other. While the kernel reads or writes a request's
//! memory, its pages are pinned in the pmap, which keeps them out of every transition; the ring
//! itself has no guest memory registered. The cache is a write-back cache: the guest's flush is
//! `fdatasync`; for a driver that knows no flush each write has one of its own. `judge.rs` says how
//! requests end, and what is told of failures.
//!
//! Pinned pages cannot be taken back to serve other faults. So all devices together pin at most a
//! quarter of the grant ([`Pmap::most_pinned`]), and a larger request is done in parts. A thread of
//! its own waits for missing pages: requests in flight end meanwhile, and are answered.
//!
//! The file may be open for direct I/O (`geometry.rs`). Requests that are not aligned as that asks
//! take a bounce buffer (`bounce.rs`).
//!
//! An image has threads of its own for its requests (`workers.rs`), which copy the data. Before the
//! VMM ends, images are saved (`written.rs`).
//!
//! A disk may be held to a rate (`rate.rs`), which may change while it runs: its requests then wait
//! in the queue.
//!
//! A disk may grow while it runs (`growth.rs`); its guest is told by an interrupt.

mod back;
mod bounce;
mod direction;
mod engine;
mod geometry;
mod growth;
mod handle;
mod judge;
mod pinner;
mod request;
mod task;
#[cfg(test)]
mod tests;
mod transfer;
mod work;
mod workers;
mod written;
mod zeros;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;

use plimsoll_image::{FileStorage, Image};
use plimsoll_pmap::Pmap;
use plimsoll_protocol::control::RateLimit;

use super::notices::Notices;
use super::worker::Worker;
use super::{DeviceKind, NoticeSink, VirtioDevice, feature, read_config_bytes};
use back::{BlockBack, Parts};
use engine::Engine;
pub use geometry::Geometry;
pub use handle::BlockHandle;
use handle::Shared;
use pinner::Pinner;
use request::Bounds;
use workers::Workers;
pub use written::WrittenImages;

/// Bytes in a sector, the unit of virtio's disk addresses, whatever the disk's own.
const SECTOR: u64 = 512;
/// Requests that may be in flight. Fewer starve a fast disk; more cost memory for buffers'
/// addresses.
const QUEUE_SIZE: u16 = 256;
/// Buffers in a request beside its header and its status byte: a chain may be as long as the queue.
const MAX_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes in one of them. With it a request has an end (32 MiB), and so has what a reset waits for.
const MAX_SEGMENT: u32 = 128 * 1024;
/// Bytes in a request.
const MAX_REQUEST: u32 = MAX_SEGMENTS * MAX_SEGMENT;
/// Sectors in a discard request: 1 GiB. It frees blocks and costs little.
const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// Sectors in a write-zeroes request: 16 MiB. Where the file system cannot zero a range, the
/// device's thread writes the zeros, and nothing else meanwhile.
const MAX_ZERO_SECTORS: u32 = 1 << 15;
/// Length of the disk's name that the guest can ask for.
const ID_LENGTH: usize = 20;

/// Feature bits (VIRTIO 1.2, section 5.2.3).
mod bit {
    pub(super) const SIZE_MAX: u64 = 1 << 1;
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const TOPOLOGY: u64 = 1 << 10;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// The configuration of a disk.
#[derive(Debug)]
pub struct BlockConfig {
    /// What its content lies in.
    pub medium: Medium,
    /// The guest may not write it.
    pub read_only: bool,
    /// How fast it may be.
    pub rate: RateLimit,
    /// What the guest sees as its serial number; cut after 20 bytes.
    pub id: String,
    /// Use an io_uring; without, or where the kernel refuses one, requests run one after the other.
    pub io_uring: bool,
}

/// What a disk's content lies in, open for reading, and for writing unless the disk is read-only.
#[derive(Debug)]
pub enum Medium {
    /// A raw file or a block device, with its blocks.
    File(File, Geometry),
    /// An image, whose data is copied. Others may flush it.
    Image(Arc<Image<FileStorage>>),
}

/// The front of a disk.
pub struct Block {
    features: u64,
    geometry: Geometry,
    shared: Arc<Shared>,
    worker: Worker,
}

impl Block {
    /// A disk that reads and writes `memory`. `name` is for its thread and in notices. `notices` is
    /// told if the kernel refuses an io_uring. Call it before the jail closes: it sets the io_uring
    /// up.
    ///
    /// # Errors
    /// The file's size cannot be found, or no file descriptor or thread is left.
    pub fn new(name: &str, disk: BlockConfig, memory: &Arc<Pmap>, notices: NoticeSink) -> io::Result<Self> {
        let (file, size, geometry, engine) = match disk.medium {
            Medium::File(mut file, geometry) => {
                // Also finds the size of a block device, whose metadata says zero.
                let size = file.seek(SeekFrom::End(0))?;
                let file = Arc::new(file);
                let engine = engine(name, &file, disk.io_uring, &notices);
                (Some(file), size, geometry, engine)
            }
            Medium::Image(image) => {
                let size = image.size();
                let workers = Workers::spawn(name, image, memory.ram())?;
                (None, size, Geometry::IMAGE, Engine::Image(workers))
            }
        };
        let sectors = geometry.sectors(size);
        let bounds = Bounds { sectors, read_only: disk.read_only, geometry };
        let features = features(disk.read_only);
        let shared = Arc::new(Shared::new(sectors, disk.rate));
        let back = BlockBack::new(Parts {
            file,
            bounds,
            id: &disk.id,
            shared: Arc::clone(&shared),
            memory: Arc::clone(memory),
            engine,
            pinner: Pinner::spawn(name)?,
            notices: Notices::new(name, Arc::clone(&notices)),
        });
        Ok(Self { features, geometry, shared, worker: Worker::spawn(name.to_owned(), back, notices)? })
    }

    /// A handle that changes the disk while it runs.
    pub fn handle(&self) -> BlockHandle {
        BlockHandle::new(Arc::clone(&self.shared), self.worker.bell())
    }
}

impl VirtioDevice for Block {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Block
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn worker(&self) -> &Worker {
        &self.worker
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // A driver that reads half of a size before it changes, and half after, reads it again at
        // the interrupt that follows, at the latest when it is ready for one.
        read_config_bytes(&config_space(self.shared.sectors(), self.geometry), offset, data);
    }
}

/// What carries out requests to a raw file.
fn engine(name: &str, file: &Arc<File>, io_uring: bool, notices: &NoticeSink) -> Engine {
    match io_uring.then(|| Engine::uring(file)) {
        None => Engine::blocking(Arc::clone(file)),
        Some(Ok(engine)) => engine,
        Some(Err(error)) => {
            notices(format!(
                "device {name}: the kernel refuses an io_uring ({error}); its requests run one after the other"
            ));
            Engine::blocking(Arc::clone(file))
        }
    }
}

fn features(read_only: bool) -> u64 {
    let always = feature::COMMON | bit::SIZE_MAX | bit::SEG_MAX | bit::BLK_SIZE | bit::FLUSH | bit::TOPOLOGY;
    always | if read_only { bit::RO } else { bit::DISCARD | bit::WRITE_ZEROES }
}

/// `struct virtio_blk_config` (VIRTIO 1.2, section 5.2.4) up to the last field that a feature here
/// shows.
fn config_space(sectors: u64, geometry: Geometry) -> [u8; 60] {
    let mut config = [0; 60];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &sectors.to_le_bytes());
    put(8, &MAX_SEGMENT.to_le_bytes());
    put(12, &MAX_SEGMENTS.to_le_bytes());
    put(20, &geometry.logical.to_le_bytes()); // blk_size
    put(24, &[geometry.physical_exponent()]); // physical_block_exp
    put(34, &1_u16.to_le_bytes()); // num_queues
    put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
    put(40, &1_u32.to_le_bytes()); // max_discard_seg
    put(44, &8_u32.to_le_bytes()); // discard_sector_alignment: less than a page frees nothing
    put(48, &MAX_ZERO_SECTORS.to_le_bytes());
    put(52, &1_u32.to_le_bytes()); // max_write_zeroes_seg
    put(56, &[1]); // write_zeroes_may_unmap
    config
}
