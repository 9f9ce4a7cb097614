//! Which allocations are followed, decided before anything else is done about them. The arithmetic
//! is in the library (`tracer_ebpf::sampling`), where the host tests it.

use tracer_ebpf::{
    Sampler,
    sampling::{self, Points, RANDOM_STEP, Rate},
};

use crate::{
    atomic,
    maps::{RATE, SAMPLERS},
    settings,
};

/// This CPU's sampler: programs stay on their CPU while they run.
struct Cpu(*mut Sampler);

/// In place of a distance: that at hand was drawn for another interval.
const ANOTHER_INTERVAL: i64 = i64::MIN;

impl Points for Cpu {
    #[inline(always)]
    fn count_down(&self, bytes: u64) -> i64 {
        // SAFETY: a pointer to a map value, which is changed by whole words alone.
        unsafe { atomic::fetch_add(&raw mut (*self.0).distance, bytes.wrapping_neg()) }.cast_signed()
    }

    #[inline(always)]
    fn restart(&self, distance: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).distance, distance) };
    }

    #[inline(always)]
    fn random(&self) -> u64 {
        // SAFETY: as above.
        sampling::random(unsafe { atomic::fetch_add(&raw mut (*self.0).random, RANDOM_STEP) })
    }
}

/// The weight of an allocation of so many bytes; 0: it is not sampled. 1 where all are followed.
#[inline(always)]
pub(crate) fn sample_weight(bytes: u64) -> u64 {
    if !settings::sampled() {
        return 1;
    }
    let (Some(rate), Some(cpu)) = (RATE.get_ptr(0), SAMPLERS.get_ptr_mut(0)) else {
        return 1;
    };
    // SAFETY: pointers to map values, of whole words; volatile, since others change them.
    let (word, drawn_for) = unsafe {
        (
            core::ptr::read_volatile(rate),
            core::ptr::read_volatile(&raw const (*cpu).interval),
        )
    };
    if word == Rate::EVERY.pack() {
        return 1;
    }
    let interval = Rate::unpack(word).interval as u64;
    let room = sampling::room(bytes);
    let before = if interval != drawn_for {
        ANOTHER_INTERVAL
    } else if interval > 1 {
        let before = Cpu(cpu).count_down(room);
        if before > room.cast_signed() {
            return 0;
        }
        before
    } else {
        0
    };
    sample_weight_slow(room, word, before.cast_unsigned())
}

/// The weight of an allocation that the distance to the next sample point does not exclude.
///
/// A global function, so that its variables are not on the stack while one is walked, and the
/// verifier checks it once.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn sample_weight_slow(room: u64, rate: u64, before: u64) -> u64 {
    let Some(cpu) = SAMPLERS.get_ptr_mut(0) else {
        return 1;
    };
    let rate = Rate::unpack(rate);
    let points = Cpu(cpu);
    let mut before = before.cast_signed();
    if before == ANOTHER_INTERVAL {
        // The distance first: who finds the new interval must find its distance.
        if rate.interval > 1 {
            points.restart(sampling::distance(points.random(), rate.interval));
        }
        // SAFETY: as in `sample_weight`.
        unsafe { core::ptr::write_volatile(&raw mut (*cpu).interval, rate.interval as u64) };
        // This allocation asks a draw of its own.
        before = 0;
    }
    if rate.interval > 1 && !sampling::is_sampled(&points, rate.interval, room, before) {
        return 0;
    }
    sampling::weight(room, rate, points.random())
}
