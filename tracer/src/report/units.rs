//! Numbers as people read them.

use std::time::Duration;

/// Binary units above the byte, each 1024 times the one before.
const BYTE_UNITS: [&str; 8] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// The mark of a missing figure.
pub(crate) const NONE: &str = "–";

/// A count with its thousands grouped: `1,204,331`.
#[must_use]
pub(crate) fn group(count: u128) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest binary unit that leaves at least one: `259 B`, `4.0 KiB`, `412.3 MiB`.
/// Rounded to the nearest tenth.
#[must_use]
pub(crate) fn bytes(bytes: u128) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit_bytes = 1_u128;
    let mut tenths = 0;
    let mut name = "B";
    for next in BYTE_UNITS {
        unit_bytes *= 1024;
        name = next;
        tenths = bytes.saturating_mul(10).saturating_add(unit_bytes / 2) / unit_bytes;
        // Asked after rounding, so that 1023.96 KiB is 1.0 MiB and not 1024.0 KiB.
        if tenths < 10 * 1024 {
            break;
        }
    }
    format!("{}.{} {name}", group(tenths / 10), tenths % 10)
}

/// A change in bytes, with its sign: `+3.1 MiB`, `-259 B`, `0 B`.
#[must_use]
pub(crate) fn signed_bytes(change: i128) -> String {
    let sign = match change {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", bytes(change.unsigned_abs()))
}

/// A share to the nearest tenth of a percent: `48.8 %`; `<0.1 %` for a small one that is not
/// nothing, and never `100.0 %` for less than all.
#[must_use]
pub(crate) fn percent(part: u128, whole: u128) -> String {
    if whole == 0 {
        return NONE.to_owned();
    }
    let tenths = (part.saturating_mul(1000).saturating_add(whole / 2)) / whole;
    if tenths == 0 && part > 0 {
        return "<0.1 %".to_owned();
    }
    let tenths = if part < whole { tenths.min(999) } else { tenths };
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// A share to the hundredth of a percent, rounded down, so that it never claims too much:
/// `99.98 %`; `100 %` only for all.
#[must_use]
pub(crate) fn percent_at_least(part: u128, whole: u128) -> String {
    if whole == 0 {
        return NONE.to_owned();
    }
    let hundredths = part.saturating_mul(10_000) / whole;
    if part == whole {
        return "100 %".to_owned();
    }
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// Returns the source of estimates: samples at this mean distance in bytes, or, where every
/// allocation counts, a part of the time.
#[must_use]
pub(crate) fn samples(interval_bytes: u64) -> String {
    match interval_bytes {
        0 | 1 => "windows of time".to_owned(),
        bytes_between => format!("one sample per {}", bytes(bytes_between.into())),
    }
}

/// The standard error of an estimate of this variance: its root, to the nearest whole number.
#[must_use]
pub(crate) const fn stderr(variance: u128) -> u128 {
    let root = variance.isqrt();
    if variance - root * root > root {
        root + 1
    } else {
        root
    }
}

/// Returns the margin of an estimate in percent of it: 1.96 standard errors, which hold in 95 cases
/// of 100 (by the normal distribution). Nothing where the estimate is 0 or exact.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a figure of two digits")]
pub(crate) fn margin_percent(estimate: u128, variance: u128) -> Option<f64> {
    (estimate > 0 && variance > 0).then(|| 196.0 * (variance as f64).sqrt() / estimate as f64)
}

/// A [`margin_percent`] with its sign: `±0.8 %`, `±12 %`; `±<0.1 %` for a small one, `±>100 %`
/// where nearly nothing is known.
#[must_use]
pub(crate) fn margin(percent: f64) -> String {
    match percent {
        ..0.05 => "±<0.1 %".to_owned(),
        ..9.95 => format!("±{percent:.1} %"),
        ..99.5 => format!("±{percent:.0} %"),
        _ => "±>100 %".to_owned(),
    }
}

/// A time: `0.25 s`, `10.0 s`, `2 min 05 s`, `1 h 02 min`.
#[must_use]
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    if time < Duration::from_secs(1) {
        format!("{:.2} s", time.as_secs_f64())
    } else if seconds < 120 {
        format!("{:.1} s", time.as_secs_f64())
    } else if seconds < 7200 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else {
        format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60)
    }
}

/// `1 stack`, `412 stacks`: a count with its noun, which takes an `s` (`es` after a sibilant) for
/// more than one.
#[must_use]
pub(crate) fn counted(count: u128, noun: &str) -> String {
    let plural = match count {
        1 => "",
        _ if noun.ends_with(['s', 'x']) || noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {noun}{plural}", group(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (123_456, "123,456"),
            (1_204_331, "1,204,331"),
            (u128::from(u64::MAX), "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(group(count), text);
        }
    }

    #[test]
    fn bytes_have_binary_units() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (432_327_884, "412.3 MiB"),
            (u128::from(u64::MAX), "16.0 EiB"),
            (u128::from(u64::MAX) * 1024, "16.0 ZiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert!(bytes(u128::MAX).ends_with("YiB"));
    }

    #[test]
    fn changes_have_signs() {
        assert_eq!(signed_bytes(0), "0 B");
        assert_eq!(signed_bytes(1536), "+1.5 KiB");
        assert_eq!(signed_bytes(-259), "-259 B");
    }

    #[test]
    fn shares_do_not_claim_too_much() {
        assert_eq!(percent(488, 1000), "48.8 %");
        assert_eq!(percent(0, 1000), "0.0 %");
        assert_eq!(percent(1, 1_000_000), "<0.1 %");
        assert_eq!(percent(999_999, 1_000_000), "99.9 %");
        assert_eq!(percent(7, 7), "100.0 %");
        assert_eq!(percent(0, 0), NONE);
        assert_eq!(percent_at_least(99_989, 100_000), "99.98 %");
        assert_eq!(percent_at_least(999_999_999, 1_000_000_000), "99.99 %");
        assert_eq!(percent_at_least(5, 5), "100 %");
        assert_eq!(percent_at_least(0, 0), NONE);
        assert_eq!(percent_at_least(5, 10_000), "0.05 %");
    }

    #[test]
    fn errors_are_roots() {
        let found = [0, 1, 2, 3, 6, 7, 1_000_000, u128::MAX].map(stderr);
        assert_eq!(found, [0, 1, 1, 2, 2, 3, 1000, 1 << 64]);
    }

    #[test]
    fn margins_have_two_digits() {
        assert_eq!(margin_percent(0, 5), None);
        assert_eq!(margin_percent(5, 0), None);
        for (estimate, variance, text) in [
            (1_000_000, 100, "±<0.1 %"),
            (1_000_000, 16_000_000, "±0.8 %"),
            (1000, 3600, "±12 %"),
            (10, 400, "±>100 %"),
        ] {
            assert_eq!(margin_percent(estimate, variance).map(margin).unwrap(), text);
        }
    }

    #[test]
    fn times_are_short() {
        for (millis, text) in [
            (0, "0.00 s"),
            (250, "0.25 s"),
            (10_020, "10.0 s"),
            (125_000, "2 min 05 s"),
            (7_325_000, "2 h 02 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn nouns_agree() {
        assert_eq!(counted(1, "stack"), "1 stack");
        assert_eq!(counted(0, "stack"), "0 stacks");
        assert_eq!(counted(4120, "stack"), "4,120 stacks");
    }
}
