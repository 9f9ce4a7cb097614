//! What drives the budget from the event loop: reads the counters, asks the controller, and does what it says.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use tracer_ebpf::intake;

use super::controller::Controller;
use super::look::LOOK_EVERY;
use super::meter::Meter;
use super::plan::{FIRST_PERIOD_S, Level, Load, Switching, Wants, Windows};
use super::slowing::Reading;
use super::statistics::Statistics;
use super::took::Took;
use super::windows::{Dice, WindowSums};
use crate::bpf::Sampling;
use crate::bpf::load::BpfError;
use crate::cost::measure::Measured;
use crate::cost::to_f64;
use crate::process::task_clocks::TaskClocks;
use crate::recorder::pace::Pace;
use crate::recorder::recorder::Recorder;
use crate::recorder::start_error::StartError;
use crate::settings::{Record, Sample, Target};

/// For so long at the most, and so many hits, hits are only counted before it is decided how much is followed.
const COUNT_FIRST: Duration = Duration::from_millis(30);
const COUNT_FIRST_HITS: f64 = 4_000.0;

/// How much is followed from now on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Followed {
    /// An allocation per so many bytes on average; 1 is every one.
    pub interval_bytes: u64,
    /// The share of time in which probes are in.
    pub share: f64,
    /// What is expected to be paid for it, in percent of a CPU, where the budget cannot be kept.
    pub over_budget_percent: Option<f64>,
}

/// Where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    /// Probes are in.
    In,
    /// Probes are out, until then.
    Out { opens: Instant },
    /// Probes are in for a window.
    Window { opened: Instant, closes: Instant },
    /// Probes are out; at the end of the period they are in for good.
    Leaving { at: Instant },
}

/// How much was followed, over the whole recording.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History {
    pub(crate) smallest_bytes: u64,
    pub(crate) largest_bytes: u64,
}

/// The budget of a recording, and what it costs.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) meter: Meter,
    pub(super) controller: Option<Controller>,
    pub(crate) windows: WindowSums,
    pub(super) state: State,
    /// The period that is going on, and when it began.
    pub(super) period: Option<(Instant, Windows)>,
    pub(crate) interval_bytes: u64,
    pub(crate) history: History,
    pub(super) switching: Switching,
    pub(super) statistics: Statistics,
    /// What was hit in the phase of statistics.
    pub(super) ran: Load,
    pub(super) looked: Instant,
    /// When they are read next, after that.
    pub(super) look_every: Duration,
    /// Little of the budget is used.
    pub(super) is_calm: bool,
    /// What was seen in the window that is open, and the hits while its probes went in.
    pub(super) in_window: Load,
    pub(super) around: f64,
    pub(super) dice: Dice,
    pub(super) pace: Pace,
    /// What is to be told.
    pub(crate) news: Option<Followed>,
    pub(super) is_refusal_told: bool,
    /// The budget, and whether it could always be kept.
    pub(crate) budget_percent: Option<f64>,
    pub(crate) is_kept: bool,
    /// The processes that were named, where those are all that there are.
    named: Vec<u32>,
    /// Their clocks, while a window is open.
    clocks: Option<TaskClocks>,
    /// Hits before the recording began, by the number of the process image.
    pub(crate) hits_before: HashMap<u32, u64>,
    /// What it had cost, and when, when progress was told last.
    pub(super) told: (Instant, f64),
}

impl Control {
    pub(crate) fn new(live: bool) -> Self {
        let now = Instant::now();
        Self {
            meter: Meter::new(live),
            controller: None,
            windows: WindowSums::default(),
            state: State::In,
            period: None,
            interval_bytes: 1,
            history: History {
                smallest_bytes: u64::MAX,
                largest_bytes: 0,
            },
            switching: Switching {
                own_s: 0.0,
                clock_s: 0.0,
                tail_s: 0.0,
            },
            statistics: Statistics::default(),
            ran: Load::default(),
            looked: now,
            look_every: LOOK_EVERY,
            is_calm: false,
            in_window: Load::default(),
            around: 0.0,
            dice: Dice::new(RandomState::new().build_hasher().finish()),
            pace: Pace::default(),
            news: None,
            is_refusal_told: false,
            budget_percent: None,
            is_kept: true,
            named: Vec::new(),
            clocks: None,
            hits_before: HashMap::new(),
            told: (now, 0.0),
        }
    }

    /// When something is to be done.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.controller.as_ref()?;
        Some(match self.state {
            State::In if self.is_calm => return None,
            State::In => self.looked + self.look_every,
            State::Out { opens } => opens,
            State::Window { closes, .. } => closes.min(self.looked + LOOK_EVERY),
            State::Leaving { at } => at,
        })
    }

    /// Whether probes are out for a while.
    pub(crate) fn is_out(&self) -> bool {
        matches!(self.state, State::Out { .. } | State::Leaving { .. })
    }

    /// How much is followed now.
    pub(crate) fn followed(&self) -> Followed {
        let level = self.controller.as_ref().map(Controller::level);
        Followed {
            interval_bytes: self.interval_bytes,
            share: self.period.map_or(1.0, |(_, windows)| windows.share()),
            over_budget_percent: level
                .filter(|level| !level.keeps_budget)
                .map(|_| self.percent_now()),
        }
    }

    /// What the targets have lost since progress was told last, in percent of a CPU.
    fn percent_now(&self) -> f64 {
        let (at, before) = self.told;
        let seconds = at.elapsed().as_secs_f64().max(1e-3);
        (self.meter.targets_ns() - before) / seconds / 1e7
    }

    /// The same, once for each time that it is told.
    pub(crate) fn tell_percent(&mut self) -> f64 {
        let percent = self.percent_now();
        self.told = (Instant::now(), self.meter.targets_ns());
        percent
    }

    /// The time that the targets have used, and what of it was the probes', if it can be told. The counters have just been
    /// read.
    pub(super) fn reading(&self) -> Option<Reading> {
        Reading::of(&self.named, self.meter.targets_ns())
    }

    /// The same for a window that opens, by clocks of its own.
    pub(super) fn first_reading(&mut self) -> Option<Reading> {
        self.clocks = TaskClocks::start(&self.named);
        self.reading_in_window()
    }

    /// And when it closes.
    pub(super) fn last_reading(&mut self) -> Option<Reading> {
        let reading = self.reading_in_window();
        self.clocks = None;
        reading
    }

    fn reading_in_window(&self) -> Option<Reading> {
        match &self.clocks {
            Some(clocks) => Reading::by(clocks, self.meter.targets_ns()),
            None => self.reading(),
        }
    }

    fn wants(settings: &Record) -> Option<Wants> {
        let percent = settings.overhead_max_percent?;
        Some(Wants {
            budget: percent / 100.0,
            interval_bytes: match settings.sample {
                Sample::Every => Some(1),
                Sample::Bytes(bytes) => Some(bytes),
                Sample::Auto => None,
            },
            may_pause: !settings.live,
            period_s: FIRST_PERIOD_S,
        })
    }

    pub(super) fn note_interval(&mut self, interval_bytes: u64) {
        self.interval_bytes = interval_bytes;
        self.history.smallest_bytes = self.history.smallest_bytes.min(interval_bytes);
        self.history.largest_bytes = self.history.largest_bytes.max(interval_bytes);
    }
}

impl Recorder {
    /// Decides how much is followed at first, and begins. `attaching` is what it took to get the probes in.
    pub(crate) fn begin_budget(
        &mut self,
        settings: &Record,
        measured: Option<Measured>,
        attaching: Took,
    ) -> Result<(), StartError> {
        self.know_prices(measured);
        if let Target::Pids(pids) = &settings.target
            && !settings.follow
        {
            self.control.named.clone_from(pids);
        }
        let attaching_hits = to_f64(self.object.hit_counts()?.by_site.iter().sum());
        let wants = Control::wants(settings).filter(|_| settings.heap);
        self.control.budget_percent = settings.overhead_max_percent.filter(|_| settings.heap);
        let first = match &settings.target {
            // It does not run yet.
            Target::Command(_) => Load::default(),
            _ if wants.is_none() => Load::default(),
            _ => self.count_first()?,
        };
        // Out goes as in, until more is known.
        let rate = first.hits_per_s();
        self.control.switching = Switching {
            own_s: 2.0 * attaching.own_s,
            clock_s: 2.0 * attaching.clock_s,
            tail_s: if rate > 0.0 {
                2.0 * attaching_hits / rate
            } else {
                0.0
            },
        };
        let counts = self.object.hit_counts()?;
        self.control.meter.take(&counts, 0.0, None);
        let level = if let Some(wants) = wants {
            let prices = self.control.meter.prices();
            let controller = Controller::new(wants, &first, &prices, &self.control.switching);
            let level = controller.level();
            log::debug!(
                "{:.0} hits a second at first: {level:?}; {prices:?}",
                first.hits_per_s()
            );
            self.control.controller = Some(controller);
            level
        } else {
            Level {
                interval_bytes: match settings.sample {
                    Sample::Bytes(bytes) => bytes,
                    Sample::Every | Sample::Auto => 1,
                },
                windows: None,
                keeps_budget: true,
            }
        };
        let counts = self.object.hit_counts()?;
        self.control.meter.begin(&counts);
        self.control.hits_before = self.hits_by_process()?;
        self.started = Instant::now();
        self.control.told = (self.started, 0.0);
        self.control.looked = self.started;
        self.enter(level)?;
        Ok(())
    }

    /// Takes in what was measured, and which probes there are.
    pub(crate) fn know_prices(&mut self, measured: Option<Measured>) {
        match measured {
            Some(Ok(traps)) => self.control.meter.traps = traps,
            Some(Err(error)) => log::debug!("{error}: what hits of probes cost is assumed"),
            None => {}
        }
        self.control.meter.know_sites(self.probes.sites());
    }

    /// Counts hits for a moment, and nothing else.
    fn count_first(&mut self) -> Result<Load, BpfError> {
        let before = self.object.hit_counts()?;
        let began = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(1));
            let now = self.object.hit_counts()?;
            let seen = super::meter::load_between(&before, &now, began.elapsed().as_secs_f64());
            if began.elapsed() >= COUNT_FIRST || seen.hits >= COUNT_FIRST_HITS {
                return Ok(seen);
            }
        }
    }

    /// Begins with a level, or goes over to one, while probes are in.
    pub(super) fn enter(&mut self, level: Level) -> Result<(), BpfError> {
        self.control.is_kept &= level.keeps_budget;
        self.control.note_interval(level.interval_bytes);
        let sampling = Sampling {
            interval_bytes: level.interval_bytes,
            share: level.windows.map_or(1.0, |windows| windows.share()),
        };
        let Some(windows) = level.windows else {
            self.object.set_sampling(sampling)?;
            self.object.set_intake(intake::ALL)?;
            self.control.state = State::In;
            self.control.period = None;
            return Ok(());
        };
        self.close_statistics();
        self.object.set_intake(intake::REGIONS)?;
        self.take_off()?;
        let sums = self.amounts()?;
        self.control.windows.begin_phase(sums);
        let reading = self.control.reading();
        self.control.windows.slowing.begin(reading);
        self.begin_period(Instant::now(), windows)
    }

    /// Does what is due.
    pub(crate) fn keep_budget(&mut self) {
        if let Err(error) = self.try_keep_budget() {
            log::warn!("{error}: the budget is not kept from here on");
            self.control.controller = None;
        }
    }

    fn try_keep_budget(&mut self) -> Result<(), BpfError> {
        match self.control.state {
            State::In => self.look(),
            State::Out { .. } => self.open_window(),
            State::Window { opened, closes } => self.see_window(opened, closes),
            State::Leaving { .. } => self.leave_windows(),
        }
    }

    /// Ends everything: the probes are about to be taken off.
    pub(crate) fn end_budget(&mut self) -> Result<(), BpfError> {
        let is_in = matches!(self.control.state, State::In | State::Window { .. });
        let interval_bytes = self.control.interval_bytes;
        self.take_hits(is_in.then_some(interval_bytes))?;
        self.close_statistics();
        if self.control.period.is_some() {
            self.end_windows()?;
        }
        self.control.controller = None;
        Ok(())
    }

    /// Counts what was hit while the probes were taken off for good.
    pub(crate) fn count_last(&mut self) -> Result<(), BpfError> {
        self.take_hits(None).map(drop)
    }
}
