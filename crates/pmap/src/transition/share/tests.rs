use super::*;

#[test]
fn no_run_is_shared_beyond_the_mappings_that_there_are() {
    let fitting = |mappings, most| {
        let run = |len| Run { slot: 0, frame: FrameNo(0), len };
        let mut runs = vec![run(1), run(16), run(3), run(100), run(20)];
        keep_what_fits(&mut runs, mappings, most);
        runs.iter().map(|run| run.len).collect::<Vec<_>>()
    };
    assert_eq!(fitting(65, 100), [1, 16, 3, 100, 20]);
    assert_eq!(fitting(66, 100), [16, 100, 20], "the last quarter is for long ones");
    assert_eq!(fitting(95, 100), [16, 100]);
    assert!(fitting(99, 100).is_empty());
    assert!(fitting(500, 100).is_empty());
}
