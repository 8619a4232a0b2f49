use proptest::prelude::*;

use super::*;

const PERIOD: Duration = Estimator::PERIOD;

fn stratum(population: u64, sampled: u64, touched: u64) -> Stratum {
    Stratum { population, sampled, touched }
}

/// A sample of small pages alone.
fn pages(population: u64, sampled: u64, touched: u64) -> Sample {
    Sample { pages: stratum(population, sampled, touched), ..Sample::default() }
}

/// The estimate between two periods.
fn between(estimator: &Estimator, population: u64) -> Estimate {
    estimator.estimate(Duration::ZERO, &pages(population, 0, 0))
}

fn any_stratum() -> impl Strategy<Value = Stratum> {
    (0..5000u64, 0..300u64, 0..300u64).prop_map(|(population, a, b)| {
        stratum(population, a.max(b).min(population), a.min(b).min(population))
    })
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let strata = (any_stratum(), any_stratum(), any_stratum());
    (strata, 0..2000u64).prop_map(|((chunks, pages, inside), arrived)| Sample {
        chunks,
        pages,
        inside,
        arrived: Pages(arrived),
    })
}

/// Draws `sampled` of `population` pages without replacement and counts those among the first
/// `active` (SplitMix64).
fn draw(seed: &mut u64, population: u64, active: u64, sampled: u64) -> u64 {
    let (mut left, mut hits, mut touched) = (population, active, 0);
    for _ in 0..sampled {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (z ^ (z >> 31)) % left < hits {
            hits -= 1;
            touched += 1;
        }
        left -= 1;
    }
    touched
}

#[test]
fn a_chunk_weighs_what_it_stands_for() {
    // 1 of 10 chunks and 50 of 100 pages: not 51 of 110, but a tenth of the chunks and half of the
    // pages.
    let sample = Sample {
        chunks: stratum(10, 10, 1),
        pages: stratum(1000, 100, 50),
        arrived: Pages(7),
        ..Sample::default()
    };
    let mut estimator = Estimator::default();
    estimator.end_period(PERIOD, &sample);
    let estimate = estimator.estimate(Duration::ZERO, &sample);
    assert_eq!(estimate.slow, Pages(512 + 500 + 7));
    // All chunks were sampled: only the pages leave room for chance.
    let pages_alone = pages(1000, 100, 50);
    let mut alone = Estimator::default();
    alone.end_period(PERIOD, &pages_alone);
    assert_eq!(estimate.margin, alone.estimate(Duration::ZERO, &pages_alone).margin);
}

/// A sample of large chunks alone, all of them touched, of which `touched` of 64 pages were.
fn probed(touched: u64) -> Sample {
    Sample { chunks: stratum(40, 40, 40), inside: stratum(40, 64, touched), ..Sample::default() }
}

#[test]
fn an_idle_guest_that_touches_all_its_chunks_is_seen_to_use_few_pages() {
    let mut estimator = Estimator::default();
    let whole = Sample { inside: Stratum::default(), ..probed(0) };
    estimator.end_period(PERIOD, &whole);
    assert_eq!(estimator.estimate(PERIOD, &whole).active(), Pages(40 * 512), "nobody has looked inside");
    // A twentieth of the pages; the step from all of them fades with the slow average.
    (0..40).for_each(|_| estimator.end_period(PERIOD, &probed(3)));
    let estimate = estimator.estimate(PERIOD, &probed(3));
    let truth = 40 * 512 * 3 / 64;
    let error = estimate.active().0.abs_diff(truth);
    assert!(error < 40 * 512 / 20, "{estimate:?} instead of {truth} of {}", 40 * 512);
    assert!(estimate.margin > Pages::ZERO, "which pages are watched is chance");
    // The rise to all pages is seen, and faster than the fall.
    (0..4).for_each(|_| estimator.end_period(PERIOD, &probed(64)));
    let busy = estimator.estimate(PERIOD, &probed(64)).active();
    assert!(busy > Pages(40 * 512 / 2), "{busy:?}");
}

#[test]
fn what_was_not_sampled_is_taken_to_be_as_the_rest() {
    let sample = Sample { chunks: stratum(10, 0, 0), pages: stratum(1000, 100, 25), ..Sample::default() };
    let mut estimator = Estimator::default();
    estimator.end_period(PERIOD, &sample);
    let unseen = Sample { chunks: stratum(10, 0, 0), ..pages(1000, 0, 0) };
    let estimate = estimator.estimate(Duration::ZERO, &unseen);
    assert_eq!(estimate.active(), Pages(1280 + 250));
    // Five sixths of it were not sampled: the margin says so.
    assert!(estimate.margin > Pages(1500), "{estimate:?}");
}

#[test]
fn nothing_is_taken_from_a_vm_that_nobody_has_looked_at() {
    let mut estimator = Estimator::default();
    let unseen = pages(1000, 0, 0);
    estimator.end_period(PERIOD, &unseen);
    assert_eq!(estimator.estimate(PERIOD, &unseen).active(), Pages(1000));
}

#[test]
fn more_samples_mean_more_confidence() {
    let margin = |sampled: u64| {
        let sample = pages(1_000_000, sampled, sampled / 2);
        let mut estimator = Estimator::default();
        estimator.end_period(PERIOD, &sample);
        between(&estimator, 1_000_000).margin.0
    };
    // 1.645 standard deviations of 5 %.
    assert!((78_000..84_000).contains(&margin(100)), "{}", margin(100));
    assert!((39_000..42_000).contains(&margin(400)), "{}", margin(400));
    assert_eq!(margin(1_000_000), 0);
}

#[test]
fn the_gains_are_those_of_the_manual() {
    let mut estimator = Estimator::default();
    estimator.end_period(PERIOD, &pages(1000, 100, 0));
    let busy = pages(1000, 100, 100);
    // The average with the period under way rises at once, the others when the period is over.
    let during = estimator.estimate(Duration::from_secs(1), &busy);
    assert_eq!((during.slow, during.fast, during.now), (Pages(0), Pages(0), Pages(500)));
    estimator.end_period(PERIOD, &busy);
    let after = estimator.estimate(Duration::ZERO, &pages(1000, 100, 0));
    assert_eq!((after.slow, after.fast), (Pages(159), Pages(500)));
    (0..3).for_each(|_| estimator.end_period(PERIOD, &busy));
    assert!(estimator.estimate(Duration::ZERO, &busy).fast >= Pages(937));
}

#[test]
fn figure_6_of_the_paper() {
    // The toucher's steps in a VM of 256 MB over 40 minutes, 100 samples a period.
    let mut estimator = Estimator::default();
    let (size, per_mb) = (256 * 256, 256);
    let mut seed = 6;
    let mut before = 0;
    estimator.end_period(PERIOD, &pages(size, 100, 0));
    for step in [0, 50, 150, 200, 250, 200, 100, 200, 150, 0, 50] {
        let truth = step * per_mb;
        let mut estimates = Vec::new();
        for _ in 0..8 {
            let sample = pages(size, 100, draw(&mut seed, size, truth, 100));
            estimates.push(estimator.estimate(PERIOD, &sample).active().0);
            estimator.end_period(PERIOD, &sample);
        }
        let tenth = size / 10;
        if truth > before {
            assert!(estimates[3] + tenth > truth, "up to {step} MB after two minutes: {estimates:?}");
        } else {
            // Half-lives of 120 s: a quarter of the step is left after four minutes, and half after
            // two.
            let half = (before - truth) / 2;
            assert!(estimates[3] + tenth >= truth + half, "down to {step} MB too fast: {estimates:?}");
            assert!(estimates[7] <= truth + half / 2 + tenth * 3 / 2, "down to {step} MB: {estimates:?}");
        }
        before = truth;
    }
}

#[test]
fn the_margin_holds_the_truth_nine_times_in_ten() {
    let population = 20_000;
    for percent in [2, 10, 30, 50, 80, 98] {
        let truth = population * percent / 100;
        let mut seed = percent;
        let within = (0..1000).filter(|_| {
            let sample = pages(population, 100, draw(&mut seed, population, truth, 100));
            let mut estimator = Estimator::default();
            estimator.end_period(PERIOD, &sample);
            let estimate = between(&estimator, population);
            estimate.active().0.abs_diff(truth) <= estimate.margin.0
        });
        let within = within.count();
        assert!((860..=995).contains(&within), "{percent} %: {within} of 1000");
    }
}

#[test]
fn the_greatest_of_three_lies_little_above_the_truth() {
    let (population, truth) = (100_000, 40_000);
    let mut seed = 1;
    let mut estimator = Estimator::default();
    let mut sum = 0;
    for i in 0..2000 {
        let sample = pages(population, 100, draw(&mut seed, population, truth, 100));
        estimator.end_period(PERIOD, &sample);
        let estimate = between(&estimator, population);
        sum += if i >= 100 { estimate.active().0 } else { 0 };
    }
    let mean = sum / 1900;
    assert!((truth..truth + population / 50).contains(&mean), "{mean}");
}

proptest! {
    #[test]
    fn no_more_is_active_than_there_is(samples in prop::collection::vec((any_sample(), 0..100u64), 1..20)) {
        let mut estimator = Estimator::default();
        for (sample, seconds) in samples {
            let elapsed = Duration::from_secs(seconds);
            let estimate = estimator.estimate(elapsed, &sample);
            let held = sample.chunks.population * 512 + sample.pages.population + sample.arrived.0;
            prop_assert!(estimate.active().0 <= held && estimate.margin.0 <= held);
            prop_assert!(estimate.active() >= sample.arrived);
            estimator.end_period(elapsed, &sample);
        }
    }

    #[test]
    fn more_touches_never_lower_an_average(samples in prop::collection::vec(any_sample(), 1..10), which in any::<prop::sample::Index>(), chunks: bool) {
        let course = |samples: &[Sample]| {
            let mut estimator = Estimator::default();
            samples.iter().for_each(|s| estimator.end_period(PERIOD, s));
            estimator.estimate(Duration::ZERO, samples.last().unwrap())
        };
        let mut raised = samples.clone();
        let sample = &mut raised[which.index(samples.len())];
        let stratum = if chunks { &mut sample.chunks } else { &mut sample.pages };
        stratum.touched = (stratum.touched + 10).min(stratum.sampled);
        let (a, b) = (course(&samples), course(&raised));
        prop_assert!(b.slow >= a.slow && b.fast >= a.fast && b.now >= a.now, "{:?} {:?}", a, b);
    }

    #[test]
    fn a_steady_load_is_found_whatever_came_before(samples in prop::collection::vec(any_sample(), 0..10), steady in any_sample()) {
        prop_assume!(steady.chunks.sampled + steady.pages.sampled > 0);
        let mut estimator = Estimator::default();
        samples.iter().for_each(|s| estimator.end_period(PERIOD, s));
        (0..400).for_each(|_| estimator.end_period(PERIOD, &steady));
        let mut fresh = Estimator::default();
        fresh.end_period(PERIOD, &steady);
        let margin = fresh.estimate(PERIOD, &steady).margin;
        // Doubt about the insides of large chunks takes more than one period to fade.
        (0..400).for_each(|_| fresh.end_period(PERIOD, &steady));
        let (old, new) = (estimator.estimate(PERIOD, &steady), fresh.estimate(PERIOD, &steady));
        // If the truth lies halfway between two pages, rounding may go either way.
        for (old, new) in [(old.slow, new.slow), (old.fast, new.fast), (old.now, new.now)] {
            prop_assert!(old.0.abs_diff(new.0) <= 1, "{:?} {:?}", old, new);
        }
        prop_assert!(old.margin <= margin);
    }

    #[test]
    fn two_short_periods_count_as_a_long_one(first in any_sample(), sample in any_sample(), seconds in 1..60u64) {
        // Pages inside large chunks are the exception: two periods have twice as many.
        let [first, sample] = [first, sample].map(|s| Sample { inside: Stratum::default(), ..s });
        let course = |parts: &[u64]| {
            let mut estimator = Estimator::default();
            estimator.end_period(PERIOD, &first);
            parts.iter().for_each(|s| estimator.end_period(Duration::from_secs(*s), &sample));
            estimator.estimate(Duration::ZERO, &sample)
        };
        let (whole, parts) = (course(&[60]), course(&[seconds, 60 - seconds]));
        prop_assert!(whole.slow.0.abs_diff(parts.slow.0) <= 1 && whole.fast.0.abs_diff(parts.fast.0) <= 1);
    }

    #[test]
    fn memory_is_given_fast_and_taken_slowly(population in 1000..100_000u64, low in 0..50u64, high in 51..=100u64) {
        let (idle, busy) = (pages(population, 100, low), pages(population, 100, high));
        let mut estimator = Estimator::default();
        estimator.end_period(PERIOD, &idle);
        let rest = estimator.estimate(PERIOD, &idle).active().0;
        // Up: half of the step within the period that shows it.
        let up = estimator.estimate(PERIOD, &busy).active().0;
        let top = population * high / 100;
        prop_assert!(up + 1 >= rest + (top - rest) / 2);
        (0..40).for_each(|_| estimator.end_period(PERIOD, &busy));
        // Down: no more than a sixth of it.
        estimator.end_period(PERIOD, &idle);
        let down = estimator.estimate(PERIOD, &idle).active().0;
        prop_assert!(down + 2 >= top - (top - rest) / 6, "{} {} {}", top, down, rest);
    }
}
