use super::*;

#[test]
fn a_run_takes_two_mappings_and_one_for_each_that_it_is_cut_into() {
    let mut extra = ExtraMappings::default();
    assert_eq!(extra.mappings(), 0);
    extra.put(10, 20);
    assert_eq!(extra.mappings(), 2);
    extra.put(40, 1);
    assert_eq!(extra.mappings(), 4);
    extra.put(15, 1);
    assert_eq!(extra.mappings(), 6, "a mapping in the midst of another makes three");
    extra.put(14, 3);
    assert_eq!(extra.mappings(), 6, "in place of it and its neighbours");
    extra.put(30, 10);
    assert_eq!(extra.mappings(), 6, "it joins two of them, and is a third mapping");
    extra.put(511, 1);
    extra.put(64, 64);
    assert_eq!(extra.mappings(), 10);
}
