use tracer_ebpf::BUCKETS;

use super::*;
use crate::recorder::budget::plan::FIRST_PERIOD_S;
use crate::recorder::cost::Work;

const PRICES: Prices = Prices {
    trap_ns: 700.0,
    work: Work {
        passed_ns: 100.0,
        followed_ns: 900.0,
        is_measured: true,
    },
};

const SWITCHING: Switching = Switching {
    cpu_s: 0.02,
    clock_s: 0.02,
    tail_s: 0.01,
};

const WANTS: Wants = Wants {
    budget: 0.02,
    interval_bytes: None,
    may_pause: true,
    period_s: FIRST_PERIOD_S,
};

const STEP_S: f64 = 0.005;

fn load(seconds: f64, hits: f64) -> Load {
    let mut sizes = [0.0; BUCKETS];
    sizes[6] = hits;
    Load { seconds, hits, sizes }
}

/// A run of the controller over a program of which only the rate matters.
struct Simulation {
    controller: LevelController,
    now_s: f64,
    /// The cost of each tenth of a second.
    costs: Vec<f64>,
    changes: Vec<(f64, Level)>,
    random: u64,
    in_s: f64,
}

impl Simulation {
    fn new(wants: Wants, hits_per_s: f64) -> Self {
        let controller = LevelController::new(wants, &load(0.03, hits_per_s * 0.03), &PRICES, &SWITCHING);
        Self {
            changes: vec![(0.0, controller.level())],
            controller,
            now_s: 0.0,
            costs: Vec::new(),
            random: 88_172_645_463_325_252,
            in_s: 0.0,
        }
    }

    fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        crate::numeric::to_f64(self.random >> 11) / crate::numeric::to_f64(1 << 53)
    }

    fn pay(&mut self, at_s: f64, cost: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let index = (at_s * 10.0) as usize;
        if self.costs.len() <= index {
            self.costs.resize(index + 1, 0.0);
        }
        self.costs[index] += cost;
    }

    fn run(&mut self, until_s: f64, rate: impl Fn(f64) -> f64) {
        while self.now_s < until_s {
            let before = self.controller.level();
            match before.windows {
                None => {
                    let seen = load(STEP_S, rate(self.now_s) * STEP_S);
                    self.pay(self.now_s, seen.hits * PRICES.hit_s(&seen, before.interval_bytes));
                    self.now_s += STEP_S;
                    self.in_s += STEP_S;
                    self.controller.observe(&seen, &PRICES, &SWITCHING);
                }
                Some(windows) => {
                    let opens_s = self.now_s + self.uniform() * (windows.period_s - windows.length_s);
                    let around = rate(opens_s) * SWITCHING.tail_s;
                    let limit = self.controller.window_limit_s();
                    // In steps, as in the event loop.
                    let (mut length_s, mut hits, mut spent) = (0.0, 0.0, 0.0);
                    while length_s < windows.length_s && spent <= limit {
                        let step_s = STEP_S.min(windows.length_s - length_s);
                        let seen = load(step_s, rate(opens_s + length_s) * step_s);
                        length_s += step_s;
                        hits += seen.hits;
                        spent += seen.hits * PRICES.hit_s(&seen, before.interval_bytes);
                    }
                    self.pay(opens_s, spent + around * 800e-9);
                    self.in_s += length_s;
                    let seen = load(length_s, hits);
                    self.controller
                        .observe_window(&seen, around, windows.period_s, &PRICES, &SWITCHING);
                    self.now_s += windows.period_s;
                }
            }
            let after = self.controller.level();
            let is_other_kind = after.windows.is_some() != before.windows.is_some()
                || (after.windows.is_none() && after.interval_bytes != before.interval_bytes);
            if is_other_kind {
                self.changes.push((self.now_s, after));
            }
        }
    }

    /// The largest cost of any `seconds` on end, as a rate.
    fn worst(&self, seconds: usize) -> f64 {
        let sums = self
            .costs
            .windows(10 * seconds)
            .map(|costs| costs.iter().sum::<f64>());
        sums.fold(0.0, f64::max) / f64::from(u32::try_from(seconds).unwrap())
    }

    fn mean(&self) -> f64 {
        self.costs.iter().sum::<f64>() / self.now_s
    }
}

#[test]
fn a_slow_program_is_followed_whole() {
    let mut run = Simulation::new(WANTS, 20.0);
    run.run(30.0, |_| 20.0);
    assert_eq!(run.changes.len(), 1);
    assert_eq!(run.controller.level().interval_bytes, 1);
}

#[test]
fn a_steady_load_finds_its_level_at_once_and_stays_there() {
    for rate in [11_000.0, 15_000.0, 20_000.0, 100_000.0, 1_000_000.0] {
        let mut run = Simulation::new(WANTS, rate);
        run.run(60.0, |_| rate);
        assert_eq!(run.changes.len(), 1, "{rate}: {:?}", run.changes);
        assert!(run.mean() <= WANTS.budget, "{rate}: {}", run.mean());
        assert!(run.mean() >= 0.55 * WANTS.budget, "{rate}: {}", run.mean());
        assert!(run.worst(2) <= 2.0 * WANTS.budget, "{rate}: {}", run.worst(2));
    }
}

#[test]
fn a_step_up_is_met_before_a_second_is_over() {
    let mut run = Simulation::new(WANTS, 1_000.0);
    run.run(60.0, |now_s| if now_s < 10.0 { 1_000.0 } else { 1_000_000.0 });
    let (at_s, level) = run.changes[1];
    assert!((10.0..10.1).contains(&at_s), "{:?}", run.changes);
    assert!(level.windows.is_some());
    assert_eq!(run.changes.len(), 2, "{:?}", run.changes);
    assert!(run.worst(1) <= 3.0 * WANTS.budget, "{}", run.worst(1));
    assert!(run.worst(5) <= 1.3 * WANTS.budget, "{}", run.worst(5));
}

#[test]
fn a_small_step_up_is_met_too() {
    let mut run = Simulation::new(WANTS, 9_000.0);
    run.run(30.0, |now_s| if now_s < 10.0 { 9_000.0 } else { 16_000.0 });
    assert_eq!(run.changes.len(), 2, "{:?}", run.changes);
    let (at_s, level) = run.changes[1];
    assert!(at_s <= 12.0, "{at_s}");
    assert!(level.windows.is_none() && level.interval_bytes > 1);
}

#[test]
fn when_it_calms_down_everything_is_followed_again() {
    let mut run = Simulation::new(WANTS, 1_000_000.0);
    run.run(60.0, |now_s| if now_s < 10.0 { 1_000_000.0 } else { 500.0 });
    let (at_s, level) = *run.changes.last().unwrap();
    assert!(at_s < 16.0, "{:?}", run.changes);
    assert_eq!((level.interval_bytes, level.windows), (1, None));
    assert_eq!(run.changes.len(), 2, "{:?}", run.changes);
}

#[test]
fn bursts_do_not_make_it_swing() {
    // A tenth of a second at full speed, every second, or every eight.
    for every_s in [1.0, 8.0] {
        let rate = |now_s: f64| if now_s % every_s < 0.1 { 1_000_000.0 } else { 100.0 };
        let mut run = Simulation::new(WANTS, 100.0);
        run.run(240.0, rate);
        assert!(run.changes.len() <= 14, "{every_s}: {:?}", run.changes);
        assert!(run.mean() <= WANTS.budget, "{every_s}: {}", run.mean());
        assert!(run.worst(1) <= 5.0 * WANTS.budget, "{every_s}: {}", run.worst(1));
    }
}

#[test]
fn where_blocks_are_followed_the_probes_stay_in() {
    let wants = Wants {
        may_pause: false,
        ..WANTS
    };
    let mut run = Simulation::new(wants, 1_000_000.0);
    run.run(20.0, |_| 1_000_000.0);
    assert_eq!(run.changes.len(), 1, "{:?}", run.changes);
    assert!(!run.controller.level().keeps_budget);
    assert!((run.in_s - run.now_s).abs() < 1e-6);
}

#[test]
fn a_window_of_more_than_was_foreseen_is_short() {
    let mut run = Simulation::new(WANTS, 100_000.0);
    run.run(20.0, |now_s| if now_s < 10.0 { 100_000.0 } else { 10_000_000.0 });
    // Two windows' worth, and the step of the event loop in which it is noticed.
    assert!(run.worst(2) <= 4.0 * WANTS.budget, "{}", run.worst(2));
    assert!(run.mean() <= 1.5 * WANTS.budget, "{}", run.mean());
}
