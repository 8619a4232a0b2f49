//! Direct I/O: alignment, and the bounce buffer.

use super::*;

#[test]
fn a_file_has_sectors_whatever_its_storage_and_a_device_its_own_blocks() {
    if let Some((mut coarse, _)) = direct(true, true) {
        assert_eq!(block_sizes(&mut coarse), (512, 4096), "partition tables are found");
    }
    let device = Geometry { logical: 4096, direct: None };
    let mut device = on(file().0, |_| device, false, true, RateLimit::default());
    assert_eq!(block_sizes(&mut device), (4096, 4096));
}

#[test]
fn a_request_in_parts_takes_the_bounce_buffer_as_well() {
    for io_uring in [true, false] {
        let Some((mut rig, file)) = direct(io_uring, true) else { return };
        let mut queue = start(&mut rig);
        file.write_all_at(&pattern(1 << 20, 1), 0).unwrap();
        // 600 KiB from sector 5 on, from memory that no block begins in.
        let data = pattern(600 << 10, 77);
        rig.guest.write(HIGH + 0x201, &data);
        let piece = |i: u64, access| (HIGH + 0x201 + ((i * 100) << 10), 100 << 10, access);
        let pieces: Vec<_> = (0..6).map(|i| piece(i, 0)).collect();
        assert_eq!(request(&mut rig, &mut queue, 1, 5, &pieces), (OK, 1));
        let mut expected = pattern(1 << 20, 1);
        expected[5 * 512..][..600 << 10].copy_from_slice(&data);
        let mut on_disk = vec![0; 1 << 20];
        file.read_exact_at(&mut on_disk, 0).unwrap();
        assert!(on_disk == expected);
        rig.guest.write(HIGH, &vec![0; 700 << 10]);
        let pieces: Vec<_> = (0..6).map(|i| piece(i, WRITE)).collect();
        assert_eq!(request(&mut rig, &mut queue, 0, 5, &pieces), (OK, (600 << 10) + 1));
        assert!(rig.guest.read(HIGH + 0x201, data.len()) == data);
    }
}

#[test]
fn sectors_beside_one_that_is_written_alone_keep_what_was_written_to_them() {
    let Some((mut rig, file)) = direct(true, true) else { return };
    let mut queue = start(&mut rig);
    let (large, small) = (BUFFER + 0x1000, BUFFER);
    for round in 0..100_u8 {
        // The whole of the blocks, and while that is under way one sector of each.
        rig.guest.write(large, &pattern(1 << 16, round));
        rig.guest.write(small, &[0xff; 512]);
        rig.guest.write(HEADER, &header(1, 0));
        queue.add(&rig.guest, &[(HEADER, 16, 0), (large, 1 << 16, 0), (STATUS, 1, WRITE)]);
        rig.kick(&queue);
        for block in 0..16 {
            let header_at = HEADER + 64 * (block + 1);
            rig.guest.write(header_at, &header(1, block * 8 + 3));
            queue.add(&rig.guest, &[(header_at, 16, 0), (small, 512, 0), (STATUS, 1, WRITE)]);
        }
        rig.kick(&queue);
        for _ in 0..17 {
            rig.wait_used(&mut queue);
        }
        let mut on_disk = vec![0; 1 << 16];
        file.read_exact_at(&mut on_disk, 0).unwrap();
        for (i, (disk, data)) in on_disk.chunks(512).zip(pattern(1 << 16, round).chunks(512)).enumerate() {
            // Of two writes at once to the same sector, either may be the last.
            assert!(disk == data || (i % 8 == 3 && disk == [0xff; 512]), "sector {i} of round {round}");
        }
    }
}

#[test]
fn zeros_for_direct_io_are_aligned_or_left_to_the_guest() {
    // A file system in memory cannot zero a range; the alignment is that of another.
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(1 << 20).unwrap();
    let kept = file.try_clone().unwrap();
    kept.write_all_at(&pattern(1 << 20, 9), 0).unwrap();
    let geometry = Geometry { logical: 512, direct: Some(Alignment { memory: 4096, block: 4096 }) };
    let mut rig = on(file, |_| geometry, false, true, RateLimit::default());
    let mut queue = start(&mut rig);
    for (sectors, expected) in [((8, 256), OK), ((1, 300), UNSUPPORTED), ((8, 9), UNSUPPORTED)] {
        rig.guest.write(BUFFER, &segment(sectors.0, sectors.1, 0));
        assert_eq!(request(&mut rig, &mut queue, 13, 0, &[(BUFFER, 16, 0)]), (expected, 1), "{sectors:?}");
    }
    let mut on_disk = vec![0xff; 1 << 20];
    kept.read_exact_at(&mut on_disk, 0).unwrap();
    let mut expected = pattern(1 << 20, 9);
    expected[8 * 512..264 * 512].fill(0);
    assert!(on_disk == expected);
}
