use super::*;

#[test]
fn a_set_of_many_runs_is_ragged() {
    assert!(is_ragged(&(0..34).step_by(2).collect()));
    assert!(!is_ragged(&(0..32).step_by(2).collect()));
}
