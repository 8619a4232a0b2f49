use super::*;

#[test]
fn a_row_stands_for_all_pairs_of_its_states() {
    let table = parse("//! | step | from | to |\n//! | `Spill` | a, b | c, d | in this order |\n");
    let changes: Vec<_> = table.keys().map(|change| format!("{} {}", change.from, change.to)).collect();
    assert_eq!(changes, ["a c", "a d", "b c", "b d"]);
}

#[test]
#[should_panic(expected = "no row for")]
fn a_change_that_the_table_does_not_have_is_noticed() {
    note(Step::Spill, State::Ballooned, State::Private);
}

#[test]
fn the_table_has_every_step() {
    for step in [Step::Enlarge, Step::Provide, Step::Evict, Step::Reset] {
        assert!(TABLE.keys().any(|change| change.step == format!("{step:?}")), "{step:?}");
    }
}
