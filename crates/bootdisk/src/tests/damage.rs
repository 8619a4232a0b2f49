use super::image::{Image, Tree, ext, fat};
use super::{MIB, UUID, debian, stub};

/// What a damaged disk boots, it boots within bounds; and what it does not, it says in one line.
fn survives(bytes: Vec<u8>) {
    match Image(bytes).find() {
        Ok(mut boot) => {
            assert!(boot.kernel.len() > 0 && boot.cmdline.len() <= crate::MAX_CMDLINE);
            boot.kernel.read_exact_at(&mut [0; 64], 0).ok();
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

#[test]
fn disks_that_are_cut_off_or_scribbled_on_are_survived() {
    let mut tree = debian();
    tree = tree.with("boot/vmlinuz-6.1.0-18-cloud-amd64", vec![1; 5000]);
    let root = ext("ext4", 4 * MIB, UUID, 1024, &tree);
    let esp = fat(2 * MIB, 1, &Tree::default().with("EFI/debian/grub.cfg", stub()));
    let plain = ext("ext2", 2 * MIB, UUID, 1024, &tree);
    let image = Image::gpt(&[(1, &root, false), (15, &esp, true)]).0;
    assert!(Image(image.clone()).find().is_ok() && Image(plain.clone()).find().is_ok());
    for cut in (0..image.len()).step_by(277_777) {
        survives(image[..cut].to_vec());
    }
    // Always the same: a failure shows again.
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for round in 0..400 {
        // Ext2 has no checksums that would catch it.
        let mut broken = if round % 4 == 0 { image.clone() } else { plain.clone() };
        let used: Vec<usize> =
            (0..broken.len()).step_by(512).filter(|at| broken[*at..at + 512] != [0; 512]).collect();
        for _ in 0..1 + round % 8 {
            let at = used[random(used.len())] + random(512);
            broken[at] = u8::try_from(random(256)).unwrap();
        }
        survives(broken);
    }
}
