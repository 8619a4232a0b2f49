//! Any course of requests leaves what a disk would hold.

use proptest::prelude::*;

use super::*;

/// What a driver asks of some sectors.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Read,
    Write(u8),
    Zero,
    Flush,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_requests_leave_what_a_disk_would_hold(
        asks in prop::collection::vec(
            (0u64..120, 1u32..9, prop_oneof![
                3 => Just(Ask::Read), 3 => any::<u8>().prop_map(Ask::Write), 1 => Just(Ask::Zero), 1 => Just(Ask::Flush)
            ]),
            1..40,
        ),
        io_uring: bool,
        past_the_cache in prop::option::of(any::<bool>()),
        skew in prop::sample::select(&[0_u64, 0x200, 0x333][..]),
    ) {
        let disk = past_the_cache.and_then(|coarse| direct(io_uring, coarse));
        let (mut rig, file) = disk.unwrap_or_else(|| self::rig(false, io_uring));
        let mut queue = start(&mut rig);
        let mut model = vec![0; 128 * 512];
        for (sector, sectors, ask) in asks {
            let (from, bytes) = (usize::try_from(sector).unwrap() * 512, sectors * 512);
            let held = &mut model[from..][..bytes as usize];
            let status = match ask {
                Ask::Read => {
                    let status = request(&mut rig, &mut queue, 0, sector, &[(HIGH + skew, bytes, WRITE)]).0;
                    prop_assert!(rig.guest.read(HIGH + skew, held.len()) == held);
                    status
                }
                Ask::Write(seed) => {
                    held.copy_from_slice(&pattern(held.len(), seed));
                    rig.guest.write(BUFFER + 0x1000 + skew, held);
                    request(&mut rig, &mut queue, 1, sector, &[(BUFFER + 0x1000 + skew, bytes, 0)]).0
                }
                Ask::Zero => {
                    held.fill(0);
                    rig.guest.write(BUFFER, &segment(sector, sectors, 1));
                    request(&mut rig, &mut queue, 13, 0, &[(BUFFER, 16, 0)]).0
                }
                Ask::Flush => request(&mut rig, &mut queue, 4, 0, &[]).0,
            };
            prop_assert_eq!(status, OK);
        }
        let mut on_disk = vec![0; model.len()];
        file.read_exact_at(&mut on_disk, 0).unwrap();
        prop_assert!(on_disk == model);
    }
}
