use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use plimsoll_bootdisk::{BLOCK, Source};
use plimsoll_sys::direct::COARSEST;

const ALIGNMENT: usize = COARSEST as usize;

/// The disk as the reader sees it. It may be open for direct I/O, which wants aligned memory.
pub(super) struct Disk {
    file: Rc<File>,
    size: u64,
    memory: RefCell<Vec<u8>>,
}

impl Disk {
    /// The disk in `file`, as long as it is now.
    pub(super) fn new(file: &Rc<File>) -> io::Result<Self> {
        // Metadata tells no length of a block device.
        let size = (&**file).seek(SeekFrom::End(0))?;
        Ok(Self { file: Rc::clone(file), size, memory: RefCell::new(vec![0; BLOCK + ALIGNMENT]) })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

impl Source for Disk {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut memory = self.memory.borrow_mut();
        let aligned = memory.as_ptr().align_offset(ALIGNMENT);
        // The last block ends where the disk ends, and is read as if it were whole.
        let block = &mut memory[aligned..][..buffer.len().next_multiple_of(ALIGNMENT)];
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut block[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.copy_from_slice(&block[..buffer.len()]);
        Ok(())
    }
}
