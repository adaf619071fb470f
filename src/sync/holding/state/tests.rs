//! Pure: what is done about a source, as tables.

use super::*;
use crate::{
    names::ObjectKey,
    sync::holding::{
        failures::IssueFailures,
        holdings::{Holdings, TakenBack},
        record::{Believed, Issued, Records, Superseded},
    },
    vault::{
        error::{VaultError, VaultErrorKind},
        lease::{Asked, Parent},
        request::Request,
    },
};

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);
const NAME: &str = "db";

fn error() -> VaultError {
    VaultError {
        by_vault: true,
        ..VaultError::new(VaultErrorKind::Denied, &Request::token_lookup(), "")
    }
}

fn date(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn record(what: What) -> Record {
    Record {
        ask: "a".into(),
        issued: Issued {
            namespace: None,
            connection: None,
            given: false,
            what,
        },
        at: date(100_000),
        keys: [("password".to_owned(), "password".to_owned())].into(),
        rotate: None,
        unproven: false,
    }
}

fn leased(id: &str) -> Record {
    record(What::Lease {
        id: id.into(),
        ttl: 3600,
        renewable: true,
        parent: None,
    })
}

fn certificate() -> Record {
    record(What::Certificate {
        mount: "pki".into(),
        serial: "1".into(),
        not_before: date(0),
        not_after: date(3600),
        issued: date(0),
        revoke: true,
        layout: None,
        parent: None,
    })
}

/// What the Secret names `id`, issued at `now` and written.
fn holding(id: &str, renewable: bool, now: Instant) -> Holding {
    let ttl = HOUR;
    let fresh = (Data::new(), Fresh::Lease { ttl, renewable });
    let mut holding = Holding::issued(leased(id), fresh, None, now, 1);
    holding.in_hand = None;
    holding
}

fn holdings(holding: Option<Holding>) -> Holdings {
    Holdings {
        sources: holding
            .map(|held| (NAME.to_owned(), held))
            .into_iter()
            .collect(),
        ..Holdings::default()
    }
}

fn ago(now: Instant, age: Duration) -> Instant {
    now.checked_sub(age).unwrap()
}

struct Case {
    held: Holdings,
    ask: &'static str,
    rotate: Option<&'static str>,
    intact: BTreeSet<String>,
    terms: Terms,
    vault: VaultClock,
}

impl Case {
    fn new(holding: Option<Holding>, now: Instant) -> Self {
        Self {
            held: holdings(holding),
            ask: "a",
            rotate: None,
            intact: ["password".to_owned()].into(),
            terms: Terms {
                renew_at: 0.67,
                check_every: Duration::from_mins(5),
                parent: Parent::Lives,
            },
            vault: VaultClock::told(date(0), now),
        }
    }

    fn decide(&mut self, now: Instant) -> Todo {
        let wanted = Wanted {
            ask: self.ask,
            rotate: self.rotate,
            terms: self.terms,
            vault: Some(self.vault),
            keys: &KeysSpec::default(),
            intact: Some(&self.intact),
        };
        self.held.decide(NAME, &wanted, now)
    }
}

fn case_of_lease(why: Why, now: Instant) -> Case {
    let mut held = match why {
        Why::Gone | Why::ParentEnding => holding("a/1", true, now),
        Why::Expired => holding("a/1", true, ago(now, HOUR)),
        Why::Ending => holding("a/1", false, ago(now, HOUR / 4 * 3)),
        Why::RenewalRefused => holding("a/1", true, ago(now, HOUR / 60 * 59)),
    };
    let lease = held.lease_mut().unwrap();
    match why {
        Why::Gone => lease.gone(),
        Why::RenewalRefused => lease.failed(Asked::Renewal, &error(), ago(now, 20 * SECOND)),
        Why::Expired | Why::Ending | Why::ParentEnding => {}
    }
    let mut case = Case::new(Some(held), now);
    if why == Why::ParentEnding {
        case.terms.parent = Parent::Ends {
            since: ago(now, HOUR / 2),
            at: now + HOUR / 2,
        };
    }
    case
}

fn case(need: Need, now: Instant) -> Case {
    let well = || Case::new(Some(holding("a/1", true, now)), now);
    let polled = |due| {
        let fresh = Fresh::Unleased { poll_again: due };
        let mut held = Holding::issued(
            record(What::Unleased {}),
            (Data::new(), fresh),
            None,
            now,
            1,
        );
        held.in_hand = None;
        held
    };
    match need {
        Need::First => Case::new(None, now),
        Need::AskChanged => Case { ask: "b", ..well() },
        Need::Requested => Case {
            rotate: Some("1"),
            ..well()
        },
        Need::ValuesLost => Case {
            intact: BTreeSet::new(),
            ..well()
        },
        Need::Polled => Case::new(Some(polled(now)), now),
        Need::Ageing => {
            let fresh = (Data::new(), Fresh::Certificate);
            let mut held = Holding::issued(certificate(), fresh, None, now, 1);
            held.in_hand = None;
            let vault = VaultClock::told(date(3000), now);
            Case {
                vault,
                ..Case::new(Some(held), now)
            }
        }
        Need::Lease(why) => case_of_lease(why, now),
    }
}

const NEEDS: [Need; 11] = [
    Need::First,
    Need::AskChanged,
    Need::Requested,
    Need::ValuesLost,
    Need::Polled,
    Need::Ageing,
    Need::Lease(Why::Gone),
    Need::Lease(Why::Expired),
    Need::Lease(Why::Ending),
    Need::Lease(Why::ParentEnding),
    Need::Lease(Why::RenewalRefused),
];

#[test]
fn every_need_is_met_and_held_back_after_a_failure() {
    let now = Instant::now();
    for need in NEEDS {
        let mut case = case(need, now);
        assert_eq!(case.decide(now), Todo::Issue(need));
        let failures = case.held.failures.entry(NAME.to_owned()).or_default();
        failures.failed(error(), None, 1, now);
        let until = failures.held(now).unwrap();
        let expected = match need {
            // It may be renewed yet.
            Need::Lease(Why::RenewalRefused) => Todo::Renew,
            Need::First
            | Need::AskChanged
            | Need::Requested
            | Need::ValuesLost
            | Need::Polled
            | Need::Ageing
            | Need::Lease(Why::Gone | Why::Expired | Why::Ending | Why::ParentEnding) => {
                Todo::Wait(until)
            }
        };
        assert_eq!(case.decide(now), expected, "{need:?}");
        assert_eq!(case.decide(until), Todo::Issue(need), "{need:?}");
    }
}

/// While something else cannot be had, what is held is kept alive.
#[test]
fn every_step_of_a_lease_while_another_cannot_be_had() {
    let now = Instant::now();
    let rows = [
        ("fresh", 0, true, false, None),
        ("to be looked up", 600, true, false, Some(Todo::LookUp)),
        ("due", 2700, true, false, Some(Todo::Renew)),
        ("ending", 2700, false, false, None),
        ("refused at the end", 3540, true, true, Some(Todo::Renew)),
        ("over", 3600, true, false, None),
    ];
    for (name, age, renewable, refused, expected) in rows {
        let mut held = holding("a/1", renewable, ago(now, age * SECOND));
        if refused {
            held.lease_mut()
                .unwrap()
                .failed(Asked::Renewal, &error(), ago(now, 20 * SECOND));
        }
        let mut case = Case {
            ask: "b",
            ..Case::new(Some(held), now)
        };
        let failures = case.held.failures.entry(NAME.to_owned()).or_default();
        failures.failed(error(), None, 1, now);
        let until = failures.held(now).unwrap();
        let expected = expected.unwrap_or(Todo::Wait(until));
        assert_eq!(case.decide(now), expected, "{name}");
    }
}

#[test]
fn without_need_the_lease_decides() {
    let now = Instant::now();
    let rows = [(600, Todo::LookUp), (2700, Todo::Renew)];
    for (age, expected) in rows {
        let mut case = Case::new(Some(holding("a/1", true, ago(now, age * SECOND))), now);
        assert_eq!(case.decide(now), expected);
    }
    let mut case = Case::new(Some(holding("a/1", true, now)), now);
    assert_eq!(case.decide(now), Todo::Wait(now + case.terms.check_every));
}

/// An edit that is taken back: what failed for it is not told for ever.
#[test]
fn a_failure_is_forgotten_when_nothing_has_to_be_issued_any_more() {
    let now = Instant::now();
    let mut case = case(Need::AskChanged, now);
    let failures = case.held.failures.entry(NAME.to_owned()).or_default();
    failures.failed(error(), None, 1, now);
    case.decide(now);
    assert!(case.held.failures.contains_key(NAME));
    case.ask = "a";
    case.decide(now);
    assert!(case.held.failures.is_empty());
}

/// One row per time that is left: the longest that is waited after many failures.
#[test]
fn vain_requests_become_rare_but_for_the_last_of_a_life() {
    let now = Instant::now();
    let rows = [
        (None, 120),
        (Some(HOUR), 120),
        (Some(40 * SECOND), 10),
        (Some(SECOND), 2),
        // What has ended is no reason to hurry.
        (Some(Duration::ZERO), 120),
    ];
    for (left, longest) in rows {
        let mut failures = IssueFailures::default();
        for _ in 0..20 {
            failures.failed(error(), left, 1, now);
        }
        let wait = failures.held(now).unwrap() - now;
        assert!(
            wait <= longest * SECOND && wait >= longest * SECOND / 2,
            "{left:?}"
        );
    }
}

fn in_hand(now: Instant) -> Holdings {
    let fresh = Fresh::Lease {
        ttl: HOUR,
        renewable: true,
    };
    let previous = Some(holding("a/1", true, now));
    let new = Holding::issued(leased("a/2"), (Data::new(), fresh), previous, now, 1);
    holdings(Some(new))
}

fn superseded(held: &Holdings) -> Vec<String> {
    let ended = held.superseded.iter();
    let ids = ended.filter_map(|ending| ending.what.issued.lease());
    ids.map(|id| id.as_str().to_owned()).collect()
}

/// What is in hand, and what is used until it is written: neither is forgotten, whatever becomes of the source.
#[test]
fn nothing_in_hand_is_forgotten() {
    let now = Instant::now();
    let moment = Moment {
        clock: date(100_000),
        now,
    };
    let mut held = in_hand(now);
    assert!(held.drop_others(&BTreeSet::new(), moment));
    assert_eq!(superseded(&held), ["a/2", "a/1"]);

    let mut held = in_hand(now);
    held.drop_all(moment);
    assert_eq!(superseded(&held), ["a/2", "a/1"]);

    let mut held = in_hand(now);
    held.written(&[], true, now);
    assert_eq!(superseded(&held), ["a/1"]);

    let mut held = in_hand(now);
    let TakenBack { issued, tried } = held.take_back(NAME).unwrap();
    assert_eq!((issued, tried), (leased("a/2").issued, false));
    let holds = held.sources[NAME].record.issued.lease().unwrap();
    assert_eq!((holds.as_str(), held.is_in_hand()), ("a/1", false));
    assert!(held.take_back(NAME).is_none());
}

/// The record that is written is the record that the next process writes, so that a restart writes nothing.
#[test]
fn what_is_taken_over_is_recorded_alike() {
    let now = Instant::now();
    let moment = Moment {
        clock: date(100_000),
        now,
    };
    let mut held = in_hand(now);
    let records = held.records(true, &[]);
    held.written(&[], true, now);
    assert_eq!(held.records(false, &[]), records);
    let mut next = Holdings::default();
    for _ in 0..2 {
        let live = Believed {
            records: records.clone(),
            proven: true,
        };
        next.agree(live, HOUR, moment, 1);
        assert_eq!(next.records(false, &[]), records);
    }
}

/// What a Secret of an earlier name holds ends, unless it is in use; only then is its record taken out.
#[test]
fn what_is_held_under_an_earlier_name_ends_once() {
    let now = Instant::now();
    let moment = Moment {
        clock: date(100_000),
        now,
    };
    let key = ObjectKey::new("shop", "earlier");
    for (known, expected) in [
        ("3", "3|1 2"),
        ("1", "1|2"),
        ("3* 1", "3* 1|2"),
        ("3|1 2", "3|1 2"),
    ] {
        let mut held = spelled(known, now);
        let records = Records {
            held: named("1").map(|record| (NAME.to_owned(), record)).collect(),
            superseded: named("2").map(superseding).collect(),
            seal: None,
        };
        held.end_former([(key.clone(), records)].into(), 1, moment);
        assert_eq!(spell(&held), expected, "{known}");
        assert_eq!(held.former_that_are_over(), [], "{known}");
        for ending in &mut held.superseded {
            ending.revoked();
        }
        let over = held.former_that_are_over() == [key.clone()];
        assert_eq!(
            over,
            known.starts_with('3') && !known.contains('*'),
            "{known}"
        );
    }
}

/// A name that changed while no operator ran: what the earlier Secret holds is all there is until something was issued, and
/// written, for the next one.
#[test]
fn what_nothing_replaces_yet_is_waited_for() {
    let now = Instant::now();
    let moment = Moment {
        clock: date(100_000),
        now,
    };
    for (known, names, expected) in [
        ("", vec![NAME], vec!["1"]),
        ("2*", vec![NAME], vec!["1"]),
        ("2* 3", vec![NAME], vec![]),
        ("2", vec![NAME], vec![]),
        ("2", vec![NAME, "other"], vec!["1"]),
        // Nothing is to be issued any more.
        ("", vec![], vec![]),
    ] {
        let mut held = spelled(known, now);
        let records = Records {
            held: named("1").map(|record| (NAME.to_owned(), record)).collect(),
            superseded: named("0").map(superseding).collect(),
            seal: None,
        };
        let former = [(ObjectKey::new("shop", "earlier"), records)];
        held.end_former(former.into(), 1, moment);
        held.note_lacking(names.iter().copied());
        let waited: Vec<_> = held.irreplaceable();
        let expected: Vec<_> = expected.into_iter().map(|id| leased(id).issued).collect();
        assert_eq!(waited, expected, "{known} {names:?}");
    }
}

/// The name is given back while what the Secret of that name held is still kept: its record is in use again. So it is when
/// another object has taken the Secret over.
#[test]
fn a_record_that_is_in_use_again_is_not_taken_out() {
    let now = Instant::now();
    let moment = Moment {
        clock: date(100_000),
        now,
    };
    let records = |id| Records {
        held: named(id).map(|record| (NAME.to_owned(), record)).collect(),
        ..Records::default()
    };
    let live = |id| Believed {
        records: records(id),
        proven: true,
    };
    let key = |name| ObjectKey::new("shop", name);
    let mut held = spelled("2", now);
    held.end_former([(key("a"), records("1"))].into(), 1, moment);
    held.agree(live("1"), HOUR, moment, 1);
    held.end_former([(key("b"), records("2"))].into(), 1, moment);
    assert_eq!(spell(&held), "1|2");
    held.sources.clear();
    for ending in &mut held.superseded {
        ending.revoked();
    }
    assert_eq!(held.former_that_are_over(), [key("b")]);

    let unproven = Believed {
        proven: false,
        ..live("2")
    };
    for (name, now, expected) in [
        ("b", live("2"), true),
        ("b", live("3"), false),
        ("b", unproven, false),
        ("b", Believed::default(), false),
        ("a", live("1"), false),
    ] {
        assert_eq!(
            held.is_as_noted(&key(name), &now),
            expected,
            "{name} {now:?}"
        );
    }
}

/// Values that somebody else takes out of the Secret again and again are not issued each time; the lease is kept meanwhile.
#[test]
fn who_fights_over_the_values_gets_no_endless_leases() {
    let now = Instant::now();
    let mut case = case(Need::ValuesLost, now);
    for _ in 0..3 {
        assert_eq!(case.decide(now), Todo::Issue(Need::ValuesLost));
        case.held.losses.get_mut(NAME).unwrap().healed(now);
        assert!(case.held.fought_over(now).is_none());
    }
    let minute = 60 * SECOND;
    assert_eq!(case.decide(now), Todo::Wait(now + minute));
    assert!(case.held.fought_over(now).is_some());
    let failures = case.held.failures.entry(NAME.to_owned()).or_default();
    failures.failed(error(), None, 1, now);
    assert_eq!(
        case.decide(now),
        Todo::Wait(now + minute),
        "the later of both"
    );
    case.held.failures.clear();
    // Whatever else asks for another one does not wait.
    case.ask = "b";
    assert_eq!(case.decide(now), Todo::Issue(Need::AskChanged));
    case.ask = "a";
    case.intact = ["password".to_owned()].into();
    assert_eq!(case.decide(now), Todo::Wait(now + case.terms.check_every));
    assert!(case.held.fought_over(now).is_none());
}

/// What has no lease is asked for again and again: only other data is worth a write.
#[test]
fn what_is_polled_is_recorded_anew_only_with_another_write() {
    let now = Instant::now();
    let polled = |second| Record {
        at: date(second),
        ..record(What::Unleased {})
    };
    let issued = |record, previous| {
        let fresh = Fresh::Unleased { poll_again: now };
        Holding::issued(record, (Data::new(), fresh), previous, now, 1)
    };
    for (writes, second) in [(false, 1), (true, 2)] {
        let mut held = holdings(Some(issued(polled(1), None)));
        held.written(&[], true, now);
        let before = held.sources.remove(NAME);
        held.sources
            .insert(NAME.to_owned(), issued(polled(2), before));
        assert_eq!(held.records(writes, &[]).held[NAME].at, date(second));
        held.written(&[], writes, now);
        assert_eq!(held.records(false, &[]).held[NAME].at, date(second));
    }
}

/// One row per difference between what a process thinks and what the Secret says. What is in hand has a star, and behind
/// it what it replaces; what is to be revoked stands behind the bar.
#[test]
fn the_record_of_the_secret_decides_what_is_in_use() {
    let now = Instant::now();
    let rows = [
        // Nothing is known yet.
        ("", "1", "", true, "1|"),
        ("", "2", "1", true, "2|1"),
        ("", "1", "", false, "1|"),
        // As it should be.
        ("1", "1", "", true, "1|"),
        ("2* 1", "1", "", true, "2* 1|"),
        ("2*", "", "", true, "2*|"),
        ("1", "", "", true, "1|"),
        // The write was not answered.
        ("2* 1", "2", "1", true, "2|1"),
        ("2*", "2", "", true, "2|"),
        // What was taken back, or dropped, is in the Secret.
        ("1|2", "2", "1", true, "2|1"),
        ("|2", "2", "", true, "2|"),
        ("3*|2", "2", "", true, "3* 2|"),
        // Another process wrote.
        ("1", "2", "1", true, "2|1"),
        ("1", "2", "", true, "2|1"),
        ("3* 1", "2", "1", true, "3* 2|1"),
        ("3*", "2", "1", true, "3* 2|1"),
        // Somebody else changed the record.
        ("1", "2", "", false, "1|"),
        ("3* 1|2", "2", "", false, "3* 1|2"),
    ];
    for (known, live, replaced, proven, expected) in rows {
        let mut held = spelled(known, now);
        let records = Records {
            held: named(live)
                .map(|record| (NAME.to_owned(), record))
                .collect(),
            superseded: named(replaced).map(superseding).collect(),
            seal: None,
        };
        let clock = date(100_000);
        held.agree(Believed { records, proven }, HOUR, Moment { clock, now }, 1);
        assert_eq!(spell(&held), expected, "{known} meets {live}");
    }
}

fn named(ids: &str) -> impl Iterator<Item = Record> {
    ids.split_whitespace().map(leased)
}

fn superseding(record: Record) -> Superseded {
    Superseded {
        unused: false,
        issued: record.issued,
        since: date(100_000),
    }
}

fn spelled(text: &str, now: Instant) -> Holdings {
    let (used, ended) = text.split_once('|').unwrap_or((text, ""));
    let mut held = holdings(None);
    let clock = date(100_000);
    for record in named(ended) {
        held.end(record.issued, now, Moment { clock, now });
    }
    let mut ids = used.split_whitespace();
    if let Some(id) = ids.next() {
        let previous = ids.next().map(|id| holding(id, true, now));
        let holding = match id.strip_suffix('*') {
            None => holding(id, true, now),
            Some(id) => {
                let fresh = Fresh::Lease {
                    ttl: HOUR,
                    renewable: true,
                };
                Holding::issued(leased(id), (Data::new(), fresh), previous, now, 1)
            }
        };
        held.sources.insert(NAME.to_owned(), holding);
    }
    held
}

fn spell(held: &Holdings) -> String {
    let id = |held: &Holding| held.record.issued.lease().unwrap().as_str().to_owned();
    let used = held.sources.get(NAME).map(|holding| {
        let Some(hand) = &holding.in_hand else {
            return id(holding);
        };
        let previous = hand
            .previous
            .as_deref()
            .map(|held| format!(" {}", id(held)));
        format!("{}*{}", id(holding), previous.unwrap_or_default())
    });
    format!(
        "{}|{}",
        used.unwrap_or_default(),
        superseded(held).join(" ")
    )
}

/// A clock that was set back: the record is of the future, and says nothing about how long the lease still lives.
#[test]
fn a_record_of_the_future_promises_nothing() {
    let now = Instant::now();
    for (clock, surely) in [
        (100_000, true),
        (101_000, true),
        (110_000, false),
        (99_000, false),
    ] {
        let moment = Moment {
            clock: date(clock),
            now,
        };
        let held = Holding::taken_over(leased("a/1"), HOUR, moment, 1);
        let mut case = Case::new(Some(held), now);
        assert_eq!(case.decide(now), Todo::LookUp);
        // Half an hour later the lookups are still refused.
        let later = now + HOUR / 2;
        let holding = case.held.sources.get_mut(NAME).unwrap();
        holding
            .lease_mut()
            .unwrap()
            .failed(Asked::LookUp, &error(), later);
        let todo = case.decide(later);
        let expected = Todo::Issue(Need::Lease(Why::RenewalRefused));
        assert_eq!(todo != expected, surely, "{clock}: {todo:?}");
    }
}
