//! Conversions between counts and estimates.

/// Returns a count as a float, exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "estimates need no more than 53 bits")]
#[must_use]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

/// Returns an estimate rounded to a count; 0 for a negative one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates, and the estimate is at least 0"
)]
#[must_use]
pub(crate) fn saturating_u64(estimate: f64) -> u64 {
    estimate.round().max(0.0) as u64
}

/// Returns a figure rounded to three decimals, the precision of measured percentages.
#[must_use]
pub(crate) fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
