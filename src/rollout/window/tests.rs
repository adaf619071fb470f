//! Pure: windows.

use serde_json::json;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn windows(specs: &[(&str, &str, Option<&str>)]) -> Result<Option<Windows>, WindowError> {
    let specs: Vec<WindowSpec> = specs
        .iter()
        .map(|(schedule, duration, zone)| {
            let mut spec = json!({"schedule": schedule, "duration": duration});
            if let Some(zone) = zone {
                spec["timeZone"] = json!(zone);
            }
            serde_json::from_value(spec).unwrap()
        })
        .collect();
    Windows::from_spec(&specs)
}

fn door(all: &[&Windows], now: Timestamp) -> Door {
    let all: Vec<_> = all.iter().map(|windows| (*windows).clone()).collect();
    super::door(&all, now)
}

fn one(schedule: &str, duration: &str, zone: Option<&str>) -> Windows {
    windows(&[(schedule, duration, zone)]).unwrap().unwrap()
}

#[test]
fn a_window_is_open_from_its_time_for_its_duration() {
    let night = one("0 2 * * *", "2h", None);
    for (now, expected) in [
        (
            "2026-05-04T01:59:59Z",
            Door::Shut(Some(at("2026-05-04T02:00:00Z"))),
        ),
        ("2026-05-04T02:00:00Z", Door::Open),
        ("2026-05-04T03:59:59Z", Door::Open),
        (
            "2026-05-04T04:00:00Z",
            Door::Shut(Some(at("2026-05-05T02:00:00Z"))),
        ),
    ] {
        assert_eq!(door(&[&night], at(now)), expected, "{now}");
    }
}

#[test]
fn a_window_is_by_the_clock_of_its_time_zone_also_where_that_jumps() {
    let berlin = one("30 2 * * *", "1h", Some("Europe/Berlin"));
    for (now, expected) in [
        // Winter: an hour before Greenwich. Summer: two.
        ("2026-03-28T00:00:00Z", "2026-03-28T01:30:00Z"),
        ("2026-05-04T00:00:00Z", "2026-05-04T00:30:00Z"),
        // On the last Sunday of March there is no half past two, on that of October there are two.
        ("2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),
        ("2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"),
    ] {
        let expected = Door::Shut(Some(at(expected)));
        assert_eq!(door(&[&berlin], at(now)), expected, "{now}");
    }
}

#[test]
fn one_of_several_windows_is_enough() {
    let both = windows(&[("0 2 * * *", "1h", None), ("0 14 * * SAT", "1h", None)]);
    let both = both.unwrap().unwrap();
    // The ninth of May is a Saturday.
    assert_eq!(door(&[&both], at("2026-05-09T14:30:00Z")), Door::Open);
    assert_eq!(
        door(&[&both], at("2026-05-09T13:00:00Z")),
        Door::Shut(Some(at("2026-05-09T14:00:00Z")))
    );
}

#[test]
fn of_several_secrets_each_has_to_allow_it() {
    let (night, sunday) = (one("0 2 * * *", "2h", None), one("0 3 * * SUN", "3h", None));
    let now = at("2026-05-04T02:30:00Z");
    assert_eq!(
        door(&[&night, &sunday], now),
        Door::Shut(Some(at("2026-05-10T03:00:00Z")))
    );
    assert_eq!(
        door(&[&night, &sunday], at("2026-05-10T03:10:00Z")),
        Door::Open
    );
    assert_eq!(door(&[], now), Door::Open);
    let noon = one("0 12 * * *", "1h", None);
    assert_eq!(door(&[&night, &noon], now), Door::Shut(None));
}

#[test]
fn a_window_longer_than_its_rhythm_is_always_open() {
    let always = one("0 * * * *", "2h", None);
    assert_eq!(door(&[&always], at("2026-05-04T02:59:59Z")), Door::Open);
}

#[test]
fn what_cannot_be_used_is_named_with_its_field() {
    let messages: Vec<_> = [
        ("0 2 * *", "1h", None),
        ("0 25 * * *", "1h", None),
        ("0 0 2 * * *", "1h", None),
        ("0 2 * * *", "1h", Some("Europe/Bärlin")),
        ("0 2 30 2 *", "1h", None),
        ("0 2 * * *", "0s", None),
    ]
    .into_iter()
    .map(|window| {
        let WindowError { field, why } = windows(&[window]).unwrap_err();
        format!("{field}: {why}")
    })
    .collect();
    insta::assert_snapshot!(messages.join("\n"));
    assert_eq!(windows(&[]), Ok(None));
}
