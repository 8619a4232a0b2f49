//! Several threads at one image.

use std::thread;

use super::*;
use crate::check::{Findings, check};

#[test]
fn threads_do_not_disturb_each_other() {
    let base = Memory::new(vec![0xbb; usize::try_from(SIZE).unwrap()]);
    // Blocks of two sectors, so that those of two threads are written together.
    let storage = made(Some(&base)).with_block(1024);
    let image = opened(&storage, Some(&base));
    // Every fourth sector each, so that all of them share clusters.
    let work = |own: u64| {
        let mut random = fastrand::Rng::with_seed(own);
        let sectors: Vec<u64> = (own..SIZE / 512 - 1).step_by(4).collect();
        let mut model = vec![0xbb_u8; sectors.len()];
        for _ in 0..500 {
            let at = random.usize(..sectors.len());
            let offset = sectors[at] * 512;
            match random.u8(..10) {
                0 => image.flush().unwrap(),
                1 => {
                    image.zero(offset, 512, random.bool()).unwrap();
                    model[at] = 0;
                }
                2..6 => {
                    let mut read = [1; 512];
                    image.read(&mut read, offset).unwrap();
                    assert!(read == [model[at]; 512], "{own}: {at}");
                }
                _ => {
                    model[at] = random.u8(..);
                    image.write(&[model[at]; 512], offset).unwrap();
                }
            }
        }
    };
    thread::scope(|scope| {
        for own in 0..4 {
            scope.spawn({
                let work = &work;
                move || work(own)
            });
        }
    });
    image.flush().unwrap();
    assert_eq!(check(&storage).unwrap(), Findings::default());
}
