//! Quantities as an operator writes them: `"200 GiB"`, `"7 d"`, `"20 Mbit/s"`, `"2%"`.
//!
//! Each type reads and prints itself; its `ALLOWED` text is what an error says is allowed.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not a quantity: what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {allowed}")]
pub struct UnitError {
    /// What is allowed, with an example.
    pub allowed: &'static str,
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A data rate, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// A part of a whole, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

/// A quantity that is written as text in the config.
trait Quantity: FromStr<Err = UnitError> + fmt::Display {
    const ALLOWED: &'static str;
}

const KIB: u64 = 1 << 10;
const SIZE_UNITS: [(&str, u64); 4] =
    [("TiB", KIB * KIB * KIB * KIB), ("GiB", KIB * KIB * KIB), ("MiB", KIB * KIB), ("KiB", KIB)];
const SPAN_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];
const RATE_UNITS: [(&str, u64); 4] = [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1000), ("bit/s", 1)];

impl Quantity for Size {
    const ALLOWED: &'static str = "a size, as in \"200 GiB\" or \"500 MB\"";
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let size: bytesize::ByteSize = text.trim().parse().map_err(|_| UnitError { allowed: Self::ALLOWED })?;
        Ok(Self(size.as_u64()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_largest_unit(f, self.0, &SIZE_UNITS, "B")
    }
}

impl Quantity for Span {
    const ALLOWED: &'static str = "a length of time, as in \"7 d\", \"12 h\" or \"30 s\"";
}

impl Span {
    /// In milliseconds; more than that can hold is its maximum.
    pub fn as_ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        humantime::parse_duration(text.trim()).map(Self).map_err(|_| UnitError { allowed: Self::ALLOWED })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_largest_unit(f, self.as_ms(), &SPAN_UNITS, "s")
    }
}

impl Quantity for Rate {
    const ALLOWED: &'static str = "a data rate of at least 1 bit/s, as in \"20 Mbit/s\" or \"800 kbit/s\"";
}

impl Rate {
    /// In whole bytes per second, at least 1.
    pub fn bytes_per_second(self) -> u64 {
        (self.0 / 8).max(1)
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = UnitError { allowed: Self::ALLOWED };
        let text = text.trim();
        let (unit, factor) = RATE_UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or(refused.clone())?;
        let number: u64 = text[..text.len() - unit.len()].trim().parse().map_err(|_| refused.clone())?;
        number.checked_mul(*factor).filter(|bits| *bits > 0).map(Self).ok_or(refused)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_largest_unit(f, self.0, &RATE_UNITS, "bit/s")
    }
}

impl Quantity for Share {
    const ALLOWED: &'static str = "a share from \"0.01%\" to \"50%\", as in \"2%\"";
}

impl Share {
    /// This part of `whole`.
    pub fn of(self, whole: u64) -> u64 {
        (u128::from(whole) * u128::from(self.0) / 10_000) as u64
    }
}

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = UnitError { allowed: Self::ALLOWED };
        let percent: f64 =
            text.trim().strip_suffix('%').and_then(|text| text.trim().parse().ok()).ok_or(refused.clone())?;
        let hundredths = (percent * 100.0).round();
        if (1.0..=5000.0).contains(&hundredths) { Ok(Self(hundredths as u32)) } else { Err(refused) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(100) {
            write!(f, "{}%", self.0 / 100)
        } else {
            write!(f, "{}.{:02}%", self.0 / 100, self.0 % 100)
        }
    }
}

/// Prints with the largest unit that divides the value, so that reading it back gives the same value.
fn write_largest_unit(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    match units.iter().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{} {unit}", value / factor),
        None => write!(f, "{value} {zero}"),
    }
}

fn deserialize<'de, D: Deserializer<'de>, Q: Quantity>(deserializer: D) -> Result<Q, D::Error> {
    struct Visitor<Q>(std::marker::PhantomData<Q>);

    impl<Q: Quantity> de::Visitor<'_> for Visitor<Q> {
        type Value = Q;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(Q::ALLOWED)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Q, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Visitor(std::marker::PhantomData))
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize(deserializer)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

as_text!(Size, Span, Rate, Share);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_print_as_they_are_written() {
        for text in ["200 GiB", "1 TiB", "5 KiB", "7 B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["7 d", "12 h", "90 min", "30 s", "250 ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for text in ["20 Mbit/s", "1 Gbit/s", "800 kbit/s", "3 bit/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["2%", "0.50%", "50%"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        assert!("lots".parse::<Size>().is_err());
        assert!("7 fortnights".parse::<Span>().is_err());
        assert!("20 MB".parse::<Rate>().is_err());
        assert!("0 Mbit/s".parse::<Rate>().is_err());
        assert!("18446744073709551615 Gbit/s".parse::<Rate>().is_err());
        assert!("0%".parse::<Share>().is_err());
        assert!("51%".parse::<Share>().is_err());
        assert!("NaN%".parse::<Share>().is_err());
    }

    #[test]
    fn a_share_of_a_large_pledge_does_not_overflow() {
        assert_eq!(Share(200).of(u64::MAX), u64::MAX / 50);
        assert_eq!("2%".parse::<Share>().unwrap().of(200 << 30), 4 << 30);
    }
}
