//! Sizes, times and rates as people read them.

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

/// `2026-02-03 04:05:06 UTC`.
pub(crate) fn date(seconds: i64) -> String {
    let (year, month, day) = calendar_date(seconds.div_euclid(DAY_SECONDS));
    format!("{year:04}-{month:02}-{day:02} {} UTC", clock(seconds))
}

/// `2026-02-03T04:05:06.000000007Z`.
pub(crate) fn rfc3339(seconds: i64, nanoseconds: u32) -> String {
    let (year, month, day) = calendar_date(seconds.div_euclid(DAY_SECONDS));
    format!("{year:04}-{month:02}-{day:02}T{}.{nanoseconds:09}Z", clock(seconds))
}

const DAY_SECONDS: i64 = 86_400;

fn clock(seconds: i64) -> String {
    let second = seconds.rem_euclid(DAY_SECONDS);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The Gregorian date of a day counted from 1970-01-01, for any day of any file system: years are counted from
/// March, so that the leap day is the last, in eras of 400 years, which are all of one length.
fn calendar_date(day: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const EPOCH_DAYS: i64 = 719_468;
    let day = day + EPOCH_DAYS;
    let (era, day_of_era) = (day.div_euclid(ERA_DAYS), day.rem_euclid(ERA_DAYS));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March have 31, 30, 31, 30, 31 days and so on: 153 in five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day_of_month)
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
        assert_eq!(rfc3339(1_770_091_506, 7), "2026-02-03T04:05:06.000000007Z");
    }

    #[test]
    fn dates_are_right_on_both_sides_of_1970() {
        // By GNU date, `date -u -d @SECONDS`.
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
            (-315_619_200, "1960-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (15_032_385_535, "2446-05-10 22:38:55 UTC"),
            (-62_135_596_800, "0001-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
        // No time that an entry can hold is out of range.
        assert!(date(i64::MAX).ends_with("UTC") && date(i64::MIN).ends_with("UTC"));
    }
}
