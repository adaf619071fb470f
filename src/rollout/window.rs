//! Pure: the times at which restarts are allowed.

use std::time::Duration;

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, tz::TimeZone};

use crate::api::vault_secret::WindowSpec;

/// Looking for a time at which all windows are open ends after so many openings: about two years of daily ones.
const MOST_OPENINGS: usize = 750;

/// The windows of one `VaultSecret`; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows(Vec<Window>);

/// A time that comes again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    /// When it opens.
    schedule: Cron,
    /// For how long.
    duration: Duration,
    /// Where the clock of the schedule hangs.
    zone: TimeZone,
}

/// A window that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowError {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it, and what to do.
    pub why: String,
}

/// Whether restarts are allowed at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// They are.
    Open,
    /// Not before this time, or never.
    Shut(Option<Timestamp>),
}

impl Windows {
    /// The windows that `specs` describe; `None` if there are none, and restarts are always allowed.
    ///
    /// Fails at the first that cannot be used, or that never opens.
    pub fn from_spec(specs: &[WindowSpec]) -> Result<Option<Self>, WindowError> {
        let mut windows = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let error = |field: &str, why: String| WindowError {
                field: format!("spec.rollout.windows[{index}].{field}"),
                why,
            };
            let schedule = schedule(&spec.schedule).map_err(|why| error("schedule", why))?;
            let zone = zone(spec.time_zone.as_deref()).map_err(|why| error("timeZone", why))?;
            let duration = spec.duration.as_duration();
            if duration.is_zero() {
                let why = "it is zero, so that the window never opens; use 1m or more";
                return Err(error("duration", why.to_owned()));
            }
            let window = Window {
                schedule,
                duration,
                zone,
            };
            if window.next(Timestamp::UNIX_EPOCH).is_none() {
                let why = format!("{:?} is at no time", spec.schedule);
                return Err(error("schedule", why));
            }
            windows.push(window);
        }
        Ok((!windows.is_empty()).then_some(Self(windows)))
    }

    fn is_open(&self, at: Timestamp) -> bool {
        self.0.iter().any(|window| window.is_open(at))
    }

    /// When one opens, `at` included.
    fn opens(&self, at: Timestamp) -> Option<Timestamp> {
        if self.is_open(at) {
            return Some(at);
        }
        self.0.iter().filter_map(|window| window.next(at)).min()
    }
}

impl Window {
    fn is_open(&self, at: Timestamp) -> bool {
        let local = at.to_zoned(self.zone.clone());
        let last = self.schedule.find_previous_occurrence(&local, true);
        last.is_ok_and(|opened| {
            let since = at.duration_since(opened.timestamp()).unsigned_abs();
            since < self.duration
        })
    }

    /// When it opens next, later than `at`.
    fn next(&self, at: Timestamp) -> Option<Timestamp> {
        let local = at.to_zoned(self.zone.clone());
        let next = self.schedule.find_next_occurrence(&local, false).ok()?;
        Some(next.timestamp())
    }
}

/// Whether restarts are allowed `now` for everyone in `all`, and if not, when they are.
pub fn door(all: &[Windows], now: Timestamp) -> Door {
    let mut at = now;
    for _ in 0..MOST_OPENINGS {
        let Some(next) = all
            .iter()
            .map(|windows| windows.opens(at))
            .collect::<Option<Vec<_>>>()
        else {
            return Door::Shut(None);
        };
        match next.into_iter().max() {
            Some(next) if next > at => at = next,
            Some(_) | None if at == now => return Door::Open,
            Some(_) | None => return Door::Shut(Some(at)),
        }
    }
    Door::Shut(None)
}

fn schedule(text: &str) -> Result<Cron, String> {
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    parser.parse(text).map_err(|error| {
        format!(
            "{text:?} is not a schedule of five fields (minute, hour, day of month, month, day of week), such as \"0 2 * * SUN\": {}",
            error.to_string().trim_end_matches('.')
        )
    })
}

fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name else {
        return Ok(TimeZone::UTC);
    };
    TimeZone::get(name).map_err(|_| {
        format!("{name:?} is not a time zone of the IANA database, such as \"Europe/Berlin\"")
    })
}

#[cfg(test)]
mod tests;
