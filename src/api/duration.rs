//! Pure: durations as people write them in Go and Kubernetes, kept to the letter.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration such as `90s`, `1h30m` or `2d`.
///
/// The text is kept as written, so that an object read back has no difference to the manifest in git.
/// Units: `ns`, `us`, `ms`, `s`, `m`, `h`, and `d` for 24 hours. There is no sign.
#[derive(Clone, PartialEq, Eq)]
pub struct GoDuration {
    text: String,
    value: Duration,
}

/// The same grammar as [`parse`], for the schema.
const PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h|d))+$";

/// Not longer than [`MAX`], as far as CEL can tell, which knows no days: what several units with days come to is told by us.
const RULE: &str = r"self.contains('d') ? self.matches('(^|[a-z])0*([0-9]{1,2}|[12][0-9]{2}|3[0-5][0-9]|36[0-6])([.][0-9]+)?d') : duration(self) <= duration('8784h')";
/// What to do about it.
const MESSAGE: &str = "a duration may be at most 366d (8784h), written as 90s, 5m, 1h30m or 30d";

/// Longest text accepted; the longest sensible one is far shorter.
const MAX_LENGTH: usize = 32;

/// Upper bound of any duration here. It keeps every later addition to a clock in range.
const MAX: Duration = Duration::from_hours(366 * 24);

impl GoDuration {
    /// The length of time.
    pub fn as_duration(&self) -> Duration {
        self.value
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Not of the form number + unit.
    #[error("expected a duration such as 90s, 5m or 1h30m, got {0} characters of another form")]
    Form(usize),
    /// More than a year.
    #[error(
        "{0} is too long: a duration may be at most 366d (8784h), written as 90s, 5m, 1h30m or 30d"
    )]
    TooLong(String),
}

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let value = parse(text).ok_or_else(|| ParseDurationError::Form(text.chars().count()))?;
        if value > MAX {
            return Err(ParseDurationError::TooLong(text.to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            value,
        })
    }
}

/// `None` when `text` is not number + unit, repeated.
fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > MAX_LENGTH {
        return None;
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| !c.is_ascii_lowercase())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        total = total.checked_add(scale(number, unit)?)?;
        rest = tail;
    }
    Some(total)
}

fn scale(number: &str, unit: &str) -> Option<Duration> {
    let nanos_per_unit: f64 = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        "d" => 86400e9,
        _ => return None,
    };
    let well_formed = !number.starts_with('.') && !number.ends_with('.');
    let number: f64 = number.parse().ok().filter(|_| well_formed)?;
    Duration::try_from_secs_f64(number * nanos_per_unit / 1e9).ok()
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "maxLength": MAX_LENGTH, "pattern": PATTERN,
            "x-kubernetes-validations": [{"rule": RULE, "message": MESSAGE}],
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_forms_are_read() {
        let table = [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("300ms", 300),
            ("2d", 172_800_000),
            ("0s", 0),
        ];
        for (text, millis) in table {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(
                duration.as_duration(),
                Duration::from_millis(millis),
                "{text}"
            );
            assert_eq!(duration.to_string(), text);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "", "5", "m", "-5m", "+5m", "5 m", "5M", ".5s", "5.s", "1.2.3s", "5m5", "1w", "é",
        ] {
            assert!(
                matches!(text.parse::<GoDuration>(), Err(ParseDurationError::Form(_))),
                "{text}"
            );
        }
        assert_eq!(
            "367d".parse::<GoDuration>(),
            Err(ParseDurationError::TooLong("367d".to_owned()))
        );
        assert!("9".repeat(40).parse::<GoDuration>().is_err());
        assert!("99999999999999999999999h".parse::<GoDuration>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let parsed = text.parse::<GoDuration>();
            if let Ok(duration) = parsed {
                proptest::prop_assert_eq!(duration.to_string(), text);
            }
        }
    }
}
