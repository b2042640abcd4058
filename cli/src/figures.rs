//! Sizes, times and rates as people read them.

use std::time::{Duration, SystemTime};

use bytesize::ByteSize;

/// `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `12.0 MiB/s`.
pub(crate) fn rate(bytes: u64, seconds: f64) -> String {
    // A span too short to measure gives no rate.
    if seconds < 0.001 {
        return "-".to_owned();
    }
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// `0.42 s`, `12.3 s`, `4 min 5 s`, `2 h 3 min`.
pub(crate) fn span(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.2} s"),
        10..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `1 file`, `2 files`, `12,345 files`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `12,345`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first 16 digits of an id in hex: enough to tell ids apart, as the libraries' messages do.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

/// `2026-02-03 04:05:06 UTC`, or the bare seconds where the calendar of the format ends.
pub(crate) fn date(seconds: i64) -> String {
    match rfc3339(seconds, 0) {
        Some(text) => format!("{} UTC", text.trim_end_matches('Z').replacen('T', " ", 1)),
        None => format!("@{seconds}"),
    }
}

/// `2026-02-03T04:05:06.000000007Z`, if the format can say it.
pub(crate) fn rfc3339(seconds: i64, nanoseconds: u32) -> Option<String> {
    /// 9999-12-31T23:59:59Z.
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= LAST)?;
    let moment = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds.min(999_999_999)))?;
    Some(match nanoseconds {
        0 => humantime::format_rfc3339_seconds(moment).to_string(),
        _ => humantime::format_rfc3339_nanos(moment).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(rate(10 << 20, 2.0), "5.0 MiB/s");
        assert_eq!(rate(1, 0.0), "-");
        assert_eq!(span(0.4213), "0.42 s");
        assert_eq!(span(9.99), "10.0 s");
        assert_eq!(span(245.0), "4 min 5 s");
        assert_eq!(span(7380.0), "2 h 3 min");
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(1_234_567, "file", "files"), "1,234,567 files");
        assert_eq!(date(1_770_091_506), "2026-02-03 04:05:06 UTC");
        assert_eq!(date(-1), "@-1");
        assert_eq!(date(i64::MAX), format!("@{}", i64::MAX));
        assert_eq!(rfc3339(1_770_091_506, 7).as_deref(), Some("2026-02-03T04:05:06.000000007Z"));
    }
}
