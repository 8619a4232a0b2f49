//! Images that QEMU makes and judges. `cargo xtask test --only images` runs this, with Debian's
//! qemu-img.

#![expect(clippy::unwrap_used, reason = "a test states what must hold by unwrapping")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use plimsoll_image::create::create;
use plimsoll_image::{Backing, FileStorage, Format, Image, Qcow2, chain};

/// Names the program.
const VARIABLE: &str = "PLIMSOLL_QEMU_IMG";
const SIZE: usize = (6 << 20) + 512;
const SECTOR: usize = 512;

/// A directory with images.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs qemu-img here: its exit status and what it said.
    fn qemu(&self, line: &str) -> (i32, String) {
        let program = std::env::var_os(VARIABLE).expect("PLIMSOLL_QEMU_IMG names qemu-img");
        let done = Command::new(program).args(line.split(' ')).current_dir(self.0.path()).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    fn done(&self, line: &str) {
        let (status, said) = self.qemu(line);
        assert_eq!(status, 0, "qemu-img {line}: {said}");
    }

    /// Image `name` has no error; and no space that nothing refers to, unless a crash left some.
    fn is_sound(&self, name: &str, has_crashed: bool) {
        let (status, said) = self.qemu(&format!("check -f qcow2 {name}"));
        assert!(status == 0 || (status == 3 && has_crashed), "{status}: {said}");
    }

    /// Image `name` holds `content` as QEMU sees it.
    fn holds(&self, name: &str, content: &[u8]) {
        fs::write(self.at("expected"), content).unwrap();
        self.done(&format!("compare -f qcow2 -F raw {name} expected"));
    }

    fn open(&self, name: &str) -> Image<FileStorage> {
        let links = chain::open(&self.at(name), Format::Qcow2, true, self.0.path()).unwrap();
        let files: Vec<_> = links.into_iter().map(|link| (link.format(), link.file)).collect();
        chain::image(files.into_iter().map(|(format, file)| (file, format)), true).unwrap()
    }
}

fn content(image: &Image<FileStorage>) -> Vec<u8> {
    let mut content = vec![0xee; usize::try_from(image.size()).unwrap()];
    image.read(&mut content, 0).unwrap();
    content
}

/// A disk with data that compresses, data that does not, and zeros.
fn disk(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut content = vec![0; SIZE];
    for piece in content.chunks_mut(100_000) {
        match random.u8(..3) {
            0 => random.fill(piece),
            1 => piece.iter_mut().zip((0..50).cycle()).for_each(|(to, from)| *to = from),
            _ => {}
        }
    }
    content
}

/// Does `count` random things to image `name`, which holds `model`, with ends of the process in
/// between.
fn work(place: &Place, name: &str, model: &mut [u8], count: usize, random: &mut fastrand::Rng) -> bool {
    let mut image = place.open(name);
    assert!(content(&image) == *model);
    let mut has_crashed = false;
    for _ in 0..count {
        let sector = random.usize(..SIZE / SECTOR);
        let most = if random.u8(..8) == 0 { 2000 } else { 20 };
        let sectors = random.usize(1..most).min(SIZE / SECTOR - sector);
        let (offset, length) = ((sector * SECTOR) as u64, (sectors * SECTOR) as u64);
        let part = sector * SECTOR..(sector + sectors) * SECTOR;
        match random.u8(..20) {
            0 => image.flush().unwrap(),
            1 | 2 => {
                image.discard(offset, length).unwrap();
                // Zeros, or as it was: no matter which, it stays so.
                image.read(&mut model[part], offset).unwrap();
            }
            3..6 => {
                image.zero(offset, length, random.bool()).unwrap();
                model[part].fill(0);
            }
            6 => {
                drop(image);
                has_crashed = true;
                image = place.open(name);
                model.copy_from_slice(&content(&image));
            }
            _ => {
                random.fill(&mut model[part.clone()]);
                image.write(&model[part], offset).unwrap();
            }
        }
    }
    image.flush().unwrap();
    assert!(content(&image) == *model);
    has_crashed
}

#[test]
#[ignore = "needs qemu-img: run by cargo xtask test"]
fn images_of_all_kinds_stay_sound_for_qemu() {
    for (number, options) in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=4096",
        "cluster_size=2097152",
        "cluster_size=4096,compat=0.10",
        "refcount_bits=8",
        "refcount_bits=64",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc",
    ]
    .into_iter()
    .enumerate()
    {
        for backing in [None, Some("raw"), Some("qcow2")] {
            let place = Place::new();
            let mut random = fastrand::Rng::with_seed(number as u64);
            let mut model = vec![0; SIZE];
            let backing = match backing {
                Some(_) if options.contains("preallocation") => continue,
                None => String::new(),
                Some(format) => {
                    model = disk(&mut random);
                    fs::write(place.at("raw"), &model).unwrap();
                    place.done("convert -f raw -O qcow2 raw qcow2");
                    format!(" -b {format} -F {format}")
                }
            };
            place.done(&format!("create -q -f qcow2{backing} -o {options} image {SIZE}"));
            let has_crashed = work(&place, "image", &mut model, 400, &mut random);
            place.is_sound("image", has_crashed);
            place.holds("image", &model);
            println!("{options}{backing}: sound");
        }
    }
}

#[test]
#[ignore = "needs qemu-img: run by cargo xtask test"]
fn compressed_images_are_read_and_written_over() {
    for (number, options) in [
        "compression_type=zlib",
        "compression_type=zstd",
        "cluster_size=4096",
        "compat=0.10",
        "cluster_size=2097152",
    ]
    .into_iter()
    .enumerate()
    {
        let place = Place::new();
        let mut random = fastrand::Rng::with_seed(100 + number as u64);
        let mut model = disk(&mut random);
        fs::write(place.at("raw"), &model).unwrap();
        place.done(&format!("convert -c -f raw -O qcow2 -o {options} raw image"));
        let has_crashed = work(&place, "image", &mut model, 300, &mut random);
        place.is_sound("image", has_crashed);
        place.holds("image", &model);
        // And as a base.
        place.done("create -q -f qcow2 -b image -F qcow2 top");
        let has_crashed = work(&place, "top", &mut model, 100, &mut random);
        place.is_sound("top", has_crashed);
        place.holds("top", &model);
        println!("{options}: sound");
    }
}

#[test]
#[ignore = "needs qemu-img: run by cargo xtask test"]
fn images_that_are_made_here_are_qemus() {
    let place = Place::new();
    let new = |name: &str| {
        let file = File::options().read(true).write(true).create_new(true).open(place.at(name)).unwrap();
        FileStorage::new(file).unwrap()
    };
    for (name, size, cluster) in [
        ("a", SIZE as u64, 65536),
        ("b", 1 << 40, 65536),
        ("c", 8 << 40, 65536),
        ("d", 1 << 30, 4096),
        ("e", 512, 2 << 20),
    ] {
        create(&new(name), size, cluster, None).unwrap();
        place.is_sound(name, false);
        let (_, said) = place.qemu(&format!("info -f qcow2 --output json {name}"));
        assert!(said.contains(&format!("\"virtual-size\": {size}")), "{said}");
        assert!(said.contains(&format!("\"cluster-size\": {cluster}")), "{said}");
    }
    let mut random = fastrand::Rng::with_seed(7);
    let mut model = disk(&mut random);
    fs::write(place.at("base"), &model).unwrap();
    let backing = Backing { name: "base".to_owned(), format: Some(Format::Raw) };
    create(&new("top"), SIZE as u64, 65536, Some(&backing)).unwrap();
    let has_crashed = work(&place, "top", &mut model, 400, &mut random);
    place.is_sound("top", has_crashed);
    place.holds("top", &model);
    // What QEMU changes is read.
    place.done("resize -q -f qcow2 a +1M");
    let image =
        Qcow2::open(FileStorage::new(File::open(place.at("a")).unwrap()).unwrap(), false, None).unwrap();
    assert_eq!(image.size(), SIZE as u64 + (1 << 20));
    drop(image);
    place.done("snapshot -c one a");
    let file = File::options().read(true).write(true).open(place.at("a")).unwrap();
    let refused = Qcow2::open(FileStorage::new(file).unwrap(), true, None).unwrap_err().to_string();
    assert!(refused.contains("snapshots"), "{refused}");
}
