use proptest::prelude::*;

use super::super::offset;
use super::*;

const WINDOW: Range<u64> = 0xd000_0000..0xd010_0000;
const BAR: u64 = 0x8000;

/// A function of memory that notes where it is mapped.
struct Fake {
    config: ConfigSpace,
    mapped: Arc<Mutex<Option<u64>>>,
    memory: Vec<u8>,
}

impl Fake {
    fn on_bus(device: u16, base: u64) -> (Box<dyn Function>, Arc<Mutex<Option<u64>>>) {
        let mut config = ConfigSpace::new(Identity { device, ..BRIDGE });
        config.add_bar(base, BAR);
        let mapped = Arc::new(Mutex::new(None));
        let memory = vec![0; usize::try_from(BAR).unwrap()];
        (Box::new(Self { config, mapped: Arc::clone(&mapped), memory }), mapped)
    }
}

impl Function for Fake {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
    }
    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
    }
    fn bar(&self) -> Option<Range<u64>> {
        self.config.bar().map(|base| base..base.saturating_add(BAR))
    }
    fn map(&mut self, base: Option<u64>) {
        *lock(&self.mapped) = base;
    }
    fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
        let offset = usize::try_from(offset).unwrap();
        data.copy_from_slice(&self.memory[offset..offset + data.len()]);
    }
    fn write_bar(&mut self, offset: u64, data: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        self.memory[offset..offset + data.len()].copy_from_slice(data);
    }
    fn reset(&mut self) {
        self.config.reset();
    }
}

type Place = Arc<Mutex<Option<u64>>>;

/// A bus with functions 8 and 9, and where they are mapped.
fn bus() -> (Arc<Root>, Place, Place) {
    let mut root = Root::new(WINDOW);
    let (one, one_at) = Fake::on_bus(1, WINDOW.start);
    let (other, other_at) = Fake::on_bus(2, WINDOW.start + BAR);
    root.add(8, one);
    root.add(9, other);
    (Arc::new(root), one_at, other_at)
}

fn ecam(number: u64, register: usize) -> u64 {
    number * ECAM_FUNCTION + register as u64
}

fn word(device: &dyn BusDevice, at: u64) -> u32 {
    let mut word = [0; 4];
    device.read(at, &mut word);
    u32::from_le_bytes(word)
}

fn decode(root: &Arc<Root>, number: u64, on: bool) {
    Ecam(Arc::clone(root)).write(ecam(number, offset::COMMAND), &[if on { 2 } else { 0 }, 0]);
}

fn move_to(root: &Arc<Root>, number: u64, base: u64) {
    Ecam(Arc::clone(root)).write(ecam(number, offset::BAR), &base.to_le_bytes());
}

#[test]
fn both_ways_lead_to_the_same_configuration_space() {
    let (root, ..) = bus();
    let (ecam_space, ports) = (Ecam(Arc::clone(&root)), Ports(Arc::clone(&root)));
    for number in 0..=255u32 {
        let by_memory = word(&ecam_space, ecam(number.into(), 0));
        ports.write(0, &(ADDRESS_ENABLE | number << 8).to_le_bytes());
        assert_eq!(word(&ports, 4), by_memory);
        let expected = match number {
            0 => 0x0008_1b36,
            8 => 0x0001_1b36,
            9 => 0x0002_1b36,
            _ => u32::MAX,
        };
        assert_eq!(by_memory, expected, "{number}");
    }
    // The class of a host bridge, by bytes of the data port.
    ports.write(0, &(ADDRESS_ENABLE | 8).to_le_bytes());
    let mut class = [0; 2];
    ports.read(6, &mut class);
    assert_eq!(class, [0x00, 0x06]);
}

#[test]
fn the_address_port_takes_words_only_and_leads_to_bus_0_only() {
    let (root, ..) = bus();
    let ports = Ports(Arc::clone(&root));
    ports.write(0, &ADDRESS_ENABLE.to_le_bytes());
    // As Linux does before it asks for mechanism 1.
    ports.write(3, &[1]);
    ports.write(0, &[7, 7]);
    assert_eq!(word(&ports, 0), ADDRESS_ENABLE);
    assert_ne!(word(&ports, 4), u32::MAX);
    for address in [0, ADDRESS_ENABLE | 1 << 16, ADDRESS_ENABLE | 255 << 16] {
        ports.write(0, &address.to_le_bytes());
        assert_eq!(word(&ports, 4), u32::MAX, "{address:#x}");
    }
}

#[test]
fn a_bar_answers_where_it_is_while_it_decodes() {
    let (root, place, _) = bus();
    let memory = MemoryWindow(Arc::clone(&root));
    assert_eq!(word(&memory, 0), u32::MAX);
    decode(&root, 8, true);
    memory.write(4, &7u32.to_le_bytes());
    assert_eq!((word(&memory, 4), *lock(&place)), (7, Some(WINDOW.start)));
    decode(&root, 8, false);
    assert_eq!((word(&memory, 4), *lock(&place)), (u32::MAX, None));
    move_to(&root, 8, WINDOW.start + 0x4_0000);
    decode(&root, 8, true);
    assert_eq!((word(&memory, 4), word(&memory, 0x4_0004)), (u32::MAX, 7));
    assert_eq!(word(&memory, 0x4_0000 + BAR - 2), u32::MAX, "across its end");
    root.reset();
    assert_eq!((word(&memory, 0x4_0004), *lock(&place)), (u32::MAX, None));
}

#[test]
fn a_bar_on_another_or_outside_of_the_window_is_not_mapped() {
    let (root, one, other) = bus();
    decode(&root, 8, true);
    decode(&root, 9, true);
    assert_eq!(root.mapped().len(), 2);
    for base in [0, 0x10_0000, WINDOW.start - BAR, WINDOW.end, 0xfec0_0000, 1 << 32, u64::MAX - 0xffff] {
        move_to(&root, 9, base);
        assert_eq!(*lock(&other), None, "{base:#x}");
    }
    move_to(&root, 9, WINDOW.start);
    assert_eq!((*lock(&one), *lock(&other)), (Some(WINDOW.start), None));
    // It is where it was, once the other is away and it asks again.
    move_to(&root, 8, WINDOW.start + 0x4_0000);
    move_to(&root, 9, WINDOW.start);
    assert_eq!((*lock(&one), *lock(&other)), (Some(WINDOW.start + 0x4_0000), Some(WINDOW.start)));
}

proptest! {
    #[test]
    fn mapped_bars_lie_in_the_window_and_apart(
        accesses in prop::collection::vec(
            (
                prop_oneof![6 => (8u64..10, 0u64..0x40).prop_map(|(n, r)| n * ECAM_FUNCTION + r), 1 => 0..Ecam::LENGTH],
                prop_oneof![
                    2 => (0u64..0x20).prop_map(|i| (WINDOW.start + i * BAR).to_le_bytes().to_vec()),
                    2 => prop::collection::vec(any::<u8>(), 1..9),
                    1 => Just(vec![2]),
                    1 => Just(vec![0xff; 4]),
                ],
            ),
            0..80,
        )
    ) {
        let (root, ..) = bus();
        let (ecam_space, memory) = (Ecam(Arc::clone(&root)), MemoryWindow(Arc::clone(&root)));
        for (at, data) in accesses {
            ecam_space.read(at, &mut data.clone());
            ecam_space.write(at, &data);
            memory.write(at % 0x10_0000, &data);
            let mapped = root.mapped();
            for (index, bar) in mapped.iter().enumerate() {
                prop_assert!(WINDOW.start <= bar.start && bar.end <= WINDOW.end);
                prop_assert!(mapped[..index].iter().all(|b| b.end <= bar.start || bar.end <= b.start));
            }
        }
    }
}
