//! Pure: what time it is at Vault.
//!
//! Dates that Vault sets are compared with Vault's clock, not with ours, which may differ by minutes: it is taken from
//! the `Date` header of its answers, and counted on from there with the monotonic clock.

use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};

/// The header tells whole seconds, rounded down: so much later it may be.
const RESOLUTION: SignedDuration = SignedDuration::from_secs(1);

/// Vault's clock, as its last answer told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultClock {
    date: Timestamp,
    at: Instant,
}

impl VaultClock {
    /// An answer that came between `asked` and `answered` tells `date`.
    ///
    /// Errs to the late side, by at most a second and the time the answer took: what is to happen before a date of
    /// Vault's happens rather too early.
    pub fn told(date: Timestamp, asked: Instant) -> Self {
        let date = date.checked_add(RESOLUTION).unwrap_or(Timestamp::MAX);
        Self { date, at: asked }
    }

    /// What time it is at Vault.
    pub fn time(&self, now: Instant) -> Timestamp {
        let since = SignedDuration::try_from(now.saturating_duration_since(self.at))
            .unwrap_or(SignedDuration::MAX);
        self.date.checked_add(since).unwrap_or(Timestamp::MAX)
    }

    /// When it will be `date` at Vault; `now` when that is past.
    pub fn when(&self, date: Timestamp, now: Instant) -> Instant {
        let left = Duration::try_from(self.time(now).duration_until(date)).unwrap_or_default();
        // A date beyond what the clock can count is as good as never.
        now.checked_add(left)
            .unwrap_or_else(|| now + Duration::from_hours(24 * 365))
    }
}

/// What Vault's answers told of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has not answered anything yet.
    Nothing,
    /// It answers, and tells no time.
    NoDate,
    /// The time.
    Date(VaultClock),
}

impl Heard {
    /// What the headers of an answer tell.
    pub(super) fn from_headers(headers: &HeaderMap, asked: Instant) -> Self {
        date(headers).map_or(Self::NoDate, |date| {
            Self::Date(VaultClock::told(date, asked))
        })
    }

    /// The clock to go by: `ours` where Vault tells no time. `None` until it has answered.
    pub fn clock(self, ours: Timestamp, now: Instant) -> Option<VaultClock> {
        match self {
            Self::Nothing => None,
            Self::NoDate => Some(VaultClock::told(ours, now)),
            Self::Date(clock) => Some(clock),
        }
    }
}

/// The `Date` header, if there is one.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::pki::{certificate::Facts, life::renew_at};

    #[test]
    fn the_date_of_an_answer_is_read() {
        for (text, expected) in [
            (
                "Sat, 21 Nov 2026 11:45:51 GMT",
                Some("2026-11-21T11:45:51Z"),
            ),
            ("yesterday", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::DATE, HeaderValue::from_static(text))]);
            assert_eq!(date(&headers), expected.map(|text| text.parse().unwrap()));
        }
        assert_eq!(date(&HeaderMap::new()), None);
    }

    #[test]
    fn our_clock_counts_only_where_vault_tells_no_time() {
        let now = Instant::now();
        let ours = "2026-01-01T00:00:00Z".parse().unwrap();
        let theirs = VaultClock::told("2020-01-01T00:00:00Z".parse().unwrap(), now);
        assert_eq!(Heard::Nothing.clock(ours, now), None);
        assert_eq!(Heard::Date(theirs).clock(ours, now), Some(theirs));
        let heard = Heard::from_headers(&HeaderMap::new(), now);
        assert_eq!(heard.clock(ours, now), Some(VaultClock::told(ours, now)));
    }

    #[test]
    fn time_goes_on_without_an_answer() {
        let start = Instant::now();
        let clock = VaultClock::told("2026-01-01T00:00:00Z".parse().unwrap(), start);
        let after = |seconds| start + Duration::from_secs(seconds);
        let date = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(clock.time(after(59)), date("2026-01-01T00:01:00Z"));
        assert_eq!(clock.when(date("2026-01-01T00:01:00Z"), start), after(59));
        assert_eq!(clock.when(date("2025-01-01T00:00:00Z"), after(3)), after(3));
    }

    proptest! {
        /// The clocks differ by up to ten minutes, the answer takes up to ten seconds: our clock has no say at all.
        #[test]
        fn a_certificate_is_renewed_before_it_ends_by_the_clock_of_vault(
            skew in -600_i64..=600,
            answer_took in 0_u64..10_000,
            issued_within in 0_u64..10_000,
            subsecond in 0_i64..1_000,
            life in 20_i64..100_000_000,
            percent in 10_u8..=90,
            seed: u64,
        ) {
            let asked = Instant::now();
            // What Vault's clock really says when we ask, and when it issues.
            let at_asked = Timestamp::from_millisecond(1_800_000_000_000 + skew * 1000 + subsecond).unwrap();
            let took = answer_took.max(issued_within);
            let really = |when: Instant| at_asked + (when - asked);
            let issued = really(asked + Duration::from_millis(issued_within.min(took)));
            let header = Timestamp::from_second(issued.as_second()).unwrap();
            let clock = VaultClock::told(header, asked);
            let facts = Facts {
                serial: String::new(),
                not_before: header - SignedDuration::from_secs(30),
                not_after: header + SignedDuration::from_secs(life),
            };
            let answered = asked + Duration::from_millis(took);
            let due = renew_at(&facts, clock.time(answered), f64::from(percent) / 100.0, seed);
            let when = clock.when(due, answered);
            // At once when so little is left that nothing earlier is possible.
            prop_assert!(really(when) < facts.not_after || when == answered);
        }
    }
}
