//! Pure: tests.

use serde_json::json;

use super::*;
use crate::rollout::fixtures::{at, bound};

fn event(second: i64, note: &str) -> Event {
    let event = json!({
        "metadata": {"name": "app.1"}, "reason": REASON, "note": note,
        "deprecatedFirstTimestamp": at(1).to_string(), "deprecatedLastTimestamp": at(second).to_string(),
    });
    serde_json::from_value(event).unwrap()
}

#[test]
fn what_the_apiserver_said_last_is_told_without_the_name_of_the_pod() {
    let quota =
        "is forbidden: exceeded quota: full, requested: pods=1, used: pods=2, limited: pods=2";
    let rows = [
        (
            format!("create Pod app-0 in StatefulSet app failed error: pods \"app-0\" {quota}"),
            format!("a new pod {quota}"),
        ),
        (
            format!("Error creating: pods \"agent-x7zkp\" {quota}"),
            format!("a new pod {quota}"),
        ),
        (
            "Error creating: admission webhook \"a.b\" denied the request: no".to_owned(),
            "Error creating: admission webhook \"a.b\" denied the request: no".to_owned(),
        ),
    ];
    let db = [bound("db", 200)];
    for (note, told) in rows {
        let events = [event(300, "older"), event(301, &note), event(250, "oldest")];
        assert_eq!(newest(&events, &db), Some(told));
    }
    let long = newest(&[event(300, &"ü".repeat(900))], &db).unwrap();
    assert_eq!(long.chars().count(), 300);
}

#[test]
fn what_was_refused_before_the_data_changed_is_not_told() {
    let events = [event(299, "quota")];
    assert_eq!(
        newest(&events, &[bound("db", 200), bound("api", 300)]),
        None
    );
    assert!(newest(&events, &[bound("db", 200), bound("api", 299)]).is_some());
    assert_eq!(newest(&[], &[bound("db", 200)]), None);
    assert_eq!(newest(&[Event::default()], &[bound("db", 200)]), None);
}

/// Recorders of the newer API count up in a series.
#[test]
fn an_event_that_was_counted_up_is_as_new_as_its_last_time() {
    let counted = json!({
        "metadata": {"name": "app.2"}, "reason": REASON, "note": "again",
        "eventTime": "1970-01-01T00:00:10.000000Z",
        "series": {"count": 3, "lastObservedTime": "1970-01-01T00:05:10.000000Z"},
    });
    let events = [serde_json::from_value(counted).unwrap(), event(300, "once")];
    let told = newest(&events, &[bound("db", 200)]);
    assert_eq!(told.as_deref(), Some("again"));
}
