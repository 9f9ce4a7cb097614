use super::*;

const KEY: SumKey = SumKey {
    stack: 7,
    process: 1,
    function: 1,
};

fn amount(calls: f64) -> CallsAndBytes {
    CallsAndBytes {
        calls,
        bytes: 10.0 * calls,
    }
}

/// A program that allocates in bursts: 1000 calls a second for the first half of each second, then
/// none.
fn calls_until(at_s: f64) -> f64 {
    1000.0 * (at_s.floor() * 0.5 + at_s.fract().min(0.5))
}

struct Outcome {
    estimate: f64,
    variance: f64,
}

/// A recording of so many seconds, in windows of `share` of each period.
fn record(dice: &mut Dice, seconds: f64, period_s: f64, share: f64) -> Outcome {
    let start = Instant::now();
    let moment = |at_s: f64| start + Duration::from_secs_f64(at_s);
    let mut sums = WindowSums::default();
    sums.begin_phase([]);
    let length_s = share * period_s;
    let (mut begins_s, mut seen) = (0.0, 0.0);
    while begins_s < seconds {
        sums.begin_period(moment(begins_s), Duration::from_secs_f64(period_s), share);
        let opens_s = begins_s + dice.roll() * period_s;
        let late_s = 0.1 * length_s * dice.roll();
        let closes_s = (opens_s + length_s + late_s).min(seconds);
        if opens_s < seconds {
            let is_cut = opens_s + length_s > seconds;
            let actual_s = closes_s - opens_s;
            seen += (calls_until(closes_s) - calls_until(opens_s)) / share;
            sums.close(if is_cut { actual_s } else { length_s }, actual_s);
            sums.add_windows([(KEY, amount(seen))]);
        }
        begins_s += period_s;
    }
    let end = moment(seconds);
    sums.end_phase(end);
    let correction = sums.correction(&KEY, end).unwrap_or_default();
    Outcome {
        estimate: seen + correction.calls,
        variance: sums.variance_of_total(end).calls,
    }
}

#[test]
fn estimates_are_right_on_average_and_say_how_sure_they_are() {
    let mut dice = Dice::new(1);
    // Periods with the program's own rhythm, and with another; the last period is cut.
    for (seconds, period_s) in [(30.0, 1.0), (20.3, 0.7)] {
        let truth = calls_until(seconds);
        let runs: Vec<Outcome> = (0..2000)
            .map(|_| record(&mut dice, seconds, period_s, 0.05))
            .collect();
        let mean = runs.iter().map(|run| run.estimate).sum::<f64>() / 2000.0;
        let spread = runs.iter().map(|run| (run.estimate - mean).powi(2)).sum::<f64>() / 2000.0;
        let said = runs.iter().map(|run| run.variance).sum::<f64>() / 2000.0;
        assert!((mean / truth - 1.0).abs() < 0.02, "{mean} instead of {truth}");
        assert!(
            (0.7..1.4).contains(&(said / spread)),
            "{said} said, {spread} seen"
        );
    }
}

#[test]
fn what_was_seen_before_windows_stays_as_it_is() {
    let mut sums = WindowSums::default();
    let start = Instant::now();
    sums.begin_phase([(KEY, amount(500.0))]);
    sums.begin_period(start, Duration::from_secs(1), 0.1);
    sums.close(0.1, 0.2);
    sums.add_windows([(KEY, amount(700.0))]);
    let end = start + Duration::from_secs(1);
    sums.end_phase(end);
    // The window was twice as long as planned: 200 stand for 100.
    let correction = sums.correction(&KEY, end).expect("seen");
    assert!((correction.calls + 100.0).abs() < 1e-9, "{correction:?}");
    assert!((correction.bytes + 1000.0).abs() < 1e-9, "{correction:?}");
    // A new phase: calls in between were recorded without windows.
    sums.begin_phase([(KEY, amount(900.0))]);
    assert_eq!(sums.correction(&KEY, end), Some(correction));
    assert_eq!(sums.count(), 1);
}

#[test]
fn several_windows_in_one_look_are_several() {
    // Readings of one window each, and of two: the same windows, nearly the same variance.
    let observed = [3.0, 5.0, 4.0, 8.0, 1.0, 6.0, 5.0, 4.0];
    let (mut single, mut double) = (Spread::default(), Spread::default());
    for pair in observed.chunks(2) {
        for calls in pair {
            single.observe(amount(*calls), 1.0, 1.0);
        }
        double.observe(amount(pair.iter().sum()), 1.0, 2.0);
    }
    let exact = window_variance(8, 8, 0.1, single.scaled.calls, single.squares.calls);
    let rough = window_variance(8, 4, 0.1, double.scaled.calls, double.squares.calls);
    // 36 in all, squares 192: (192 - 162) / 7.
    assert!((exact - 8.0 * 0.9 * 30.0 / 7.0).abs() < 1e-9, "{exact}");
    assert!((0.2..5.0).contains(&(rough / exact)), "{rough}");
}

#[test]
fn one_window_says_nothing_of_how_they_differ() {
    assert!((window_variance(1, 1, 0.1, 50.0, 2500.0) - 2500.0).abs() < 1e-9);
    assert!(window_variance(3, 3, 0.1, 30.0, 300.0).abs() < 1e-9);
}

#[test]
fn dice_are_even() {
    let mut dice = Dice::new(42);
    let rolls: Vec<f64> = (0..10_000).map(|_| dice.roll()).collect();
    assert!(rolls.iter().all(|roll| (0.0..1.0).contains(roll)));
    let mean = rolls.iter().sum::<f64>() / 10_000.0;
    assert!((mean - 0.5).abs() < 0.02, "{mean}");
}

#[test]
fn a_stack_that_is_in_few_windows_is_less_sure() {
    let other = SumKey { stack: 8, ..KEY };
    let start = Instant::now();
    let mut sums = WindowSums::default();
    sums.begin_phase([]);
    for window in 0..10_u32 {
        let begins = start + Duration::from_secs(window.into());
        sums.begin_period(begins, Duration::from_secs(1), 0.1);
        sums.close(0.1, 0.1);
        // As many calls in all: of one stack in each window, of the other in the last window alone.
        let steady = f64::from(window + 1) * 10.0;
        let rare = if window == 9 { 100.0 } else { 0.0 };
        sums.add_windows([(KEY, amount(steady)), (other, amount(rare))]);
    }
    let end = start + Duration::from_secs(10);
    sums.end_phase(end);
    let variance = |key| sums.variance_of(key, end).expect("seen").calls;
    assert!(variance(&KEY) < 1e-6, "{}", variance(&KEY));
    assert!(
        (variance(&other) - 10.0 * 0.9 * 1000.0).abs() < 1e-6,
        "{}",
        variance(&other)
    );
}
