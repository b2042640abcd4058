//! Quantities as a scenario writes them: `"180 d"`, `"16 MiB"`, `"20 Mbit/s"`; each says what is allowed.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A length of time, in milliseconds; never negative.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Span(pub(crate) f64);

impl Span {
    /// In milliseconds.
    pub fn ms(self) -> f64 {
        self.0
    }

    /// In whole milliseconds.
    pub fn as_ms(self) -> u64 {
        self.0 as u64
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refused = || {
            let allowed = "a length of time that is not negative is allowed, as in \"180 d\", \"12 h\" or \"500 ms\"";
            D::Error::custom(format!("{text:?}: {allowed}"))
        };
        // Years have no months here: 1 y is 365.25 d.
        let span = humantime::parse_duration(text.trim()).map_err(|_| refused())?;
        Ok(Self(span.as_secs_f64() * 1000.0))
    }
}

/// Reads a length of time above 0.
pub(crate) fn above_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    let span = Span::deserialize(deserializer)?;
    if span.0 > 0.0 {
        Ok(span)
    } else {
        Err(D::Error::custom("a length of time of more than 0 is allowed, as in \"180 d\", \"12 h\" or \"500 ms\""))
    }
}

/// Reads lengths of time, each above 0.
pub(crate) fn all_above_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Span>, D::Error> {
    #[derive(Deserialize)]
    struct Above(#[serde(deserialize_with = "above_nothing")] Span);
    Ok(Vec::<Above>::deserialize(deserializer)?.into_iter().map(|above| above.0).collect())
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let span = std::time::Duration::from_millis(self.as_ms());
        serializer.collect_str(&humantime::format_duration(span))
    }
}

/// A number above 0.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
pub struct Positive(pub(crate) f64);

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if value > 0.0 && value.is_finite() {
            Ok(Self(value))
        } else {
            Err(D::Error::custom(format!("{value}: a number above 0 is allowed, as in 0.6")))
        }
    }
}

/// A part of a whole, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
pub struct Share(pub(crate) f64);

impl Share {
    /// As a number, 0 to 1.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(D::Error::custom(format!("{value}: a share from 0 to 1 is allowed, as in 0.25")))
        }
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub struct Size(pub(crate) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size = text.trim().parse::<bytesize::ByteSize>().ok().filter(|size| size.as_u64() > 0);
        let size = size.ok_or_else(|| D::Error::custom(format!("{text:?}: a size is allowed, as in \"200 GiB\"")))?;
        Ok(Self(size.as_u64()))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// A data rate, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
pub struct Rate(pub(crate) f64);

const RATE_UNITS: [(&str, f64); 4] = [("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3), ("bit/s", 1.0)];

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let rate = RATE_UNITS.iter().find_map(|(unit, factor)| {
            let number: f64 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
            (number > 0.0 && number.is_finite()).then_some(number * factor / 8.0)
        });
        rate.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?}: a data rate is allowed, as in \"20 Mbit/s\"")))
    }
}
