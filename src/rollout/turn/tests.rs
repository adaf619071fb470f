//! Pure: the line of restarts.

use proptest::prelude::*;

use super::*;
use crate::{api::vault_secret::WorkloadKind, names::ObjectKey};

fn workload(namespace: &str, name: &str) -> WorkloadKey {
    WorkloadKey::new(WorkloadKind::Deployment, &ObjectKey::new(namespace, name))
}

const MINE: Turn = Turn::Mine { early: false };

const fn limits(cluster: usize, namespace: usize) -> Limits {
    Limits { cluster, namespace }
}

/// Gives its place back; who comes next.
fn done(line: &mut Line, workload: &WorkloadKey, limits: Limits) -> Vec<WorkloadKey> {
    line.leave(workload);
    line.call(limits)
}

#[test]
fn so_many_restart_at_once_and_the_next_when_one_is_done() {
    let limits = limits(2, 9);
    let mut line = Line::default();
    let all = ["a", "b", "c", "d"].map(|name| workload("shop", name));
    let turns: Vec<_> = all.iter().map(|one| line.ask(one, limits, false)).collect();
    let full = Turn::from(Hold::Cluster { limit: 2 });
    assert_eq!(turns, [MINE, MINE, full.clone(), full]);
    assert_eq!(line.depth(), (2, 0));
    assert_eq!(done(&mut line, &all[1], limits), [all[2].clone()]);
    assert_eq!(line.ask(&all[2], limits, false), MINE);
    assert_eq!(done(&mut line, &all[0], limits), [all[3].clone()]);
    assert_eq!(line.depth(), (0, 0));
}

#[test]
fn the_next_is_of_the_namespace_that_has_the_fewest() {
    let limits = limits(2, 2);
    let mut line = Line::default();
    let (big, small): (Vec<_>, Vec<_>) = (
        (0..5).map(|n| workload("big", &n.to_string())).collect(),
        (0..2).map(|n| workload("small", &n.to_string())).collect(),
    );
    for one in big.iter().chain(&small) {
        line.ask(one, limits, false);
    }
    assert_eq!(done(&mut line, &big[0], limits), [small[0].clone()]);
    assert_eq!(done(&mut line, &small[0], limits), [small[1].clone()]);
    assert_eq!(done(&mut line, &small[1], limits), [big[2].clone()]);
}

#[test]
fn a_namespace_has_a_limit_of_its_own() {
    let limits = limits(9, 1);
    let mut line = Line::default();
    let (one, two) = (workload("shop", "a"), workload("shop", "b"));
    assert_eq!(line.ask(&one, limits, false), MINE);
    let full = Turn::from(Hold::Namespace { limit: 1 });
    assert_eq!(line.ask(&two, limits, false), full);
    assert_eq!(line.ask(&workload("bank", "a"), limits, false), MINE);
    assert_eq!(done(&mut line, &one, limits), [two]);
}

#[test]
fn what_is_urgent_or_under_way_goes_beyond_the_limit_and_counts() {
    let limits = limits(1, 1);
    let mut line = Line::default();
    let all = ["a", "b", "c", "d"].map(|name| workload("shop", name));
    line.starts(&all[0]);
    line.starts(&all[0]);
    assert_eq!(line.ask(&all[1], limits, true), MINE);
    assert!(matches!(
        line.ask(&all[2], limits, false),
        Turn::Hold { .. }
    ));
    assert_eq!(done(&mut line, &all[0], limits), []);
    assert_eq!(done(&mut line, &all[1], limits), [all[2].clone()]);
}

#[test]
fn whoever_has_to_look_at_something_first_keeps_its_number() {
    let limits = limits(1, 9);
    let mut line = Line::default();
    let all = ["a", "b", "c", "d"].map(|name| workload("shop", name));
    for one in &all[..3] {
        line.ask(one, limits, false);
    }
    line.step_aside(&all[1]);
    assert_eq!(done(&mut line, &all[0], limits), [all[2].clone()]);
    line.ask(&all[3], limits, false);
    line.step_aside(&all[1]);
    line.ask(&all[1], limits, false);
    assert_eq!(done(&mut line, &all[2], limits), [all[1].clone()]);
    line.step_aside(&all[1]);
    assert_eq!(line.call(limits), [all[3].clone()], "it has no number left");
}

#[test]
fn whoever_does_not_wait_any_more_gets_no_turn() {
    let limits = limits(1, 1);
    let mut line = Line::default();
    let all = ["a", "b", "c"].map(|name| workload("shop", name));
    for one in &all {
        line.ask(one, limits, false);
    }
    assert_eq!(done(&mut line, &all[1], limits), []);
    assert_eq!(done(&mut line, &all[0], limits), [all[2].clone()]);
}

#[test]
fn of_two_that_wait_for_each_other_the_first_goes() {
    let mut line = Line::default();
    let (a, b, c) = (
        workload("shop", "a"),
        workload("shop", "b"),
        workload("shop", "c"),
    );
    assert!(!line.passes(&b, &a));
    assert!(!line.passes(&c, &b));
    assert!(line.passes(&a, &c), "a waits for c for b for a");
    assert!(!line.passes(&b, &a), "as long as a is not done");
    assert_eq!(line.depth(), (0, 2));
}

#[test]
fn a_wave_is_the_place_of_the_label_in_the_order() {
    let waves = Waves {
        label: "tier".into(),
        order: vec!["data".into(), "api".into()],
    };
    let rank = |value: &str| waves.rank(&[("tier".to_owned(), value.to_owned())].into());
    assert_eq!([rank("data"), rank("api"), rank("web")], [0, 1, 2]);
    assert_eq!(waves.rank(&BTreeMap::new()), 2);
}

#[derive(Clone, Debug)]
enum Event {
    Ask(usize),
    Leave(usize),
}

proptest! {
    #[test]
    fn no_limit_is_exceeded_and_nobody_is_forgotten(
        cluster in 1..5_usize,
        namespace in 1..4_usize,
        events in prop::collection::vec(
            prop_oneof![(0..12_usize).prop_map(Event::Ask), (0..12_usize).prop_map(Event::Leave)],
            0..80,
        ),
    ) {
        let limits = limits(cluster, namespace);
        let all: Vec<_> = (0..12).map(|n| workload(["x", "y", "z"][n % 3], &n.to_string())).collect();
        let mut line = Line::default();
        for event in events {
            match event {
                Event::Ask(n) => _ = line.ask(&all[n], limits, false),
                Event::Leave(n) => _ = done(&mut line, &all[n], limits),
            }
            prop_assert!(line.restarting.len() <= cluster);
            for space in ["x", "y", "z"] {
                let busy = line.restarting.iter().filter(|one| one.namespace == space).count();
                prop_assert!(busy <= namespace);
                prop_assert_eq!(line.busy.get(space).copied().unwrap_or_default(), busy);
            }
            prop_assert!(line.next(limits).is_none(), "somebody waits though there is room");
        }
        while let Some(one) = line.restarting.first().cloned() {
            done(&mut line, &one, limits);
        }
        prop_assert_eq!(line.depth(), (0, 0));
    }
}

#[test]
fn what_ends_before_its_window_opens_does_not_wait_for_it() {
    use crate::rollout::fixtures::bound;
    let wall: Timestamp = "2026-05-04T00:00:00Z".parse().unwrap();
    let now = Instant::now();
    let at = |hours: u64| now + std::time::Duration::from_hours(hours);
    let spec = serde_json::json!({"schedule": "0 2 * * *", "duration": "1h"});
    let mut bound = bound("db", 200);
    bound.windows = vec![serde_json::from_value(spec).unwrap()];
    let bound = [bound];
    let opens = Some("2026-05-04T02:00:00Z".parse().unwrap());
    let shut = Gate::Shut(Turn::Hold {
        hold: Hold::Window { opens },
        until: Some(at(2)),
    });
    for (ends, expected) in [
        (None, shut.clone()),
        (Some(at(3)), shut),
        (Some(at(2)), Gate::Early),
        (Some(at(1)), Gate::Early),
    ] {
        assert_eq!(gate(&bound, ends, (wall, now)), expected, "{ends:?}");
    }
}

#[test]
fn a_window_that_cannot_be_used_is_named_with_its_owner_and_is_as_one_that_never_opens() {
    use crate::rollout::fixtures::bound;
    let mut all = [bound("api", 200), bound("db", 200)];
    let spec = serde_json::json!({"schedule": "0 25 * * *", "duration": "1h"});
    all[1].windows = vec![serde_json::from_value(spec).unwrap()];
    let owner = all[1].vault_secret.name.clone();
    let now = Instant::now();
    let gate = |ends| gate(&all, ends, (Timestamp::UNIX_EPOCH, now));
    let Gate::Shut(Turn::Hold { hold, until: None }) = gate(None) else {
        panic!("it is open");
    };
    let Hold::NoWindow {
        vault_secret,
        error,
    } = hold
    else {
        panic!("{hold:?}");
    };
    assert_eq!((vault_secret, error.field), (owner, "spec.rollout.windows[0].schedule".to_owned()));
    assert_eq!(gate(Some(now)), Gate::Early);
}

#[test]
fn waves_that_fit_no_workload_are_named_as_soon_as_there_is_one() {
    let waves = Waves {
        label: "tier".into(),
        order: ["data", "api", "web"].map(str::to_owned).into(),
    };
    let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let (data, api, web) = (
        labels("tier", "data"),
        labels("tier", "api"),
        labels("tier", "web"),
    );
    let (last, other) = (labels("tier", "batch"), labels("app", "data"));
    let none = "spec.rollout.waves.byLabel: no workload of this VaultSecret has the label tier; it counts on the workload, not on its pods";
    let one = "spec.rollout.waves.order[1]: no workload of this VaultSecret has the label tier=api";
    let two = "spec.rollout.waves.order[0], order[2]: no workload of this VaultSecret has the label tier=data, tier=web";
    let rows = [
        (vec![], None),
        (vec![&data, &api, &web, &other], None),
        (vec![&other], Some(none)),
        (vec![&data, &web, &last], Some(one)),
        (vec![&api], Some(two)),
    ];
    for (there, told) in rows {
        let unknown = waves.unknown(there.iter().copied());
        assert_eq!(unknown.as_deref(), told, "{there:?}");
    }
}
