//! Pure: what is held for a source, in the loop with a model of Vault, under schedules of faults and clock steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{
    ending::{Ending, Next, Verdict},
    holdings::{Agreed, Holdings, TakenBack},
    record::{Believed, Issued, Record, Records, What},
    state::{Fresh, Holding, Moment, Need, Todo, Wanted},
};
use crate::{
    api::source::KeysSpec,
    vault::{
        error::{VaultError, VaultErrorKind},
        lease::{Asked, Parent, Terms, Why, says_gone},
        request::Request,
    },
};

const SOURCE: &str = "db";
const INTERVAL: Duration = Duration::from_mins(5);
/// What Vault rounds off, and what an answer takes.
const SLACK: u64 = 32;
const RENEW_AT: f64 = 0.67;

type Tried<T> = Result<T, TestCaseError>;

/// What is wrong with Vault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Not,
    Denied,
    Broken,
    Sealed,
    Unreachable,
    /// It takes its time, in seconds.
    Slow(u64),
}

/// Which requests are hit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hits {
    All,
    Issue,
    Keep,
    Revoke,
}

/// Where the process dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    Now,
    AfterIssue,
    AfterWrite,
    AfterRevoke,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Fault(Fault, Hits),
    RevokedBehindOurBack,
    Crash(Point),
    TokenEnds(u64),
    WritesRefused(bool),
    Verdict(Verdict),
    AskChanged,
    ClockSetBy(i64),
    /// Writes happen, and their answers are lost.
    AnswersLost(bool),
    /// The watch is behind by so many seconds.
    WatchBehind(u64),
    /// The Secret has to be written although nothing is issued.
    Relabelled,
}

#[derive(Clone, Debug)]
struct Leased {
    expires: u64,
    /// By its maximum TTL.
    most: u64,
    revoked: bool,
    parent: usize,
}

#[derive(Clone, Copy, Debug)]
struct Role {
    ttl: u64,
    most: u64,
    renewable: bool,
}

/// Vault, with times in seconds since the start.
struct Vault {
    role: Role,
    leases: BTreeMap<String, Leased>,
    /// When each token ends, since when that is known.
    tokens: Vec<Option<(u64, u64)>>,
    fault: (Fault, Hits),
    now: u64,
    failed_issues: Vec<u64>,
    issued: u64,
}

impl Vault {
    fn lives(&self, id: &str) -> bool {
        let lease = &self.leases[id];
        let token = self.tokens[lease.parent];
        !lease.revoked && self.now < lease.expires && token.is_none_or(|(_, at)| self.now < at)
    }

    fn alive(&self) -> BTreeSet<String> {
        let ids = self.leases.keys();
        ids.filter(|id| self.lives(id)).cloned().collect()
    }

    fn asked(&mut self, hits: Hits) -> Result<(), VaultError> {
        let (fault, on) = self.fault;
        if on != Hits::All && on != hits {
            return Ok(());
        }
        let (kind, status) = match fault {
            Fault::Not => return Ok(()),
            Fault::Slow(seconds) => {
                self.now += seconds;
                return Ok(());
            }
            Fault::Denied => (VaultErrorKind::Denied, Some(403)),
            Fault::Broken => (VaultErrorKind::Unavailable, Some(500)),
            Fault::Sealed => (VaultErrorKind::Sealed, Some(503)),
            Fault::Unreachable => (VaultErrorKind::Unreachable, None),
        };
        Err(error(kind, status, ""))
    }

    fn issue(&mut self) -> Result<(String, usize), VaultError> {
        let asked = self.asked(Hits::Issue);
        if let Err(error) = asked {
            // While Vault itself is away, the gate of the connection lets hardly any through.
            if !error.concerns_connection() {
                self.failed_issues.push(self.now);
            }
            return Err(error);
        }
        self.issued += 1;
        let id = format!("{SOURCE}/{:06}", self.issued);
        let parent = self.tokens.len() - 1;
        let lease = Leased {
            expires: self.now + self.role.ttl,
            most: self.now + self.role.most,
            revoked: false,
            parent,
        };
        self.leases.insert(id.clone(), lease);
        Ok((id, parent))
    }

    fn look_up(&mut self, id: &str) -> Result<(u64, bool), VaultError> {
        self.asked(Hits::Keep)?;
        if !self.lives(id) {
            return Err(error(VaultErrorKind::Invalid, Some(400), "invalid lease"));
        }
        Ok((self.leases[id].expires - self.now, self.role.renewable))
    }

    fn renew(&mut self, id: &str, increment: u64) -> Result<u64, VaultError> {
        self.look_up(id)?;
        if !self.role.renewable {
            let text = "lease is not renewable";
            return Err(error(VaultErrorKind::Invalid, Some(400), text));
        }
        let now = self.now;
        let lease = self.leases.get_mut(id).unwrap();
        lease.expires = (now + increment).min(lease.most);
        Ok(lease.expires - now)
    }

    fn revoke(&mut self, id: &str) -> Result<(), VaultError> {
        self.asked(Hits::Revoke)?;
        self.leases.get_mut(id).unwrap().revoked = true;
        Ok(())
    }
}

fn error(kind: VaultErrorKind, status: Option<u16>, detail: &str) -> VaultError {
    VaultError {
        by_vault: status.is_some(),
        behind: status == Some(500),
        status,
        ..VaultError::new(kind, &Request::token_lookup(), detail)
    }
}

/// One object with one source, its Secret, and the process.
struct World {
    start: Instant,
    vault: Vault,
    held: Holdings,
    /// What the Secret says, and the lease whose values it holds.
    secret: Option<Records>,
    values: String,
    /// Each version of the Secret, and since when it is there.
    versions: Vec<(u64, Option<Records>)>,
    /// How much the watch is behind, and the last version that an answer told of.
    behind: u64,
    told: usize,
    answers_lost: bool,
    relabel: bool,
    /// When the Secret ceased to name a lease.
    replaced: BTreeMap<String, u64>,
    /// Issued, and lost by a crash before they were written.
    lost: BTreeSet<String>,
    verdict: Verdict,
    writes_refused: bool,
    crash: Option<Point>,
    ask: u32,
    clock_set_by: i64,
    seed: u64,
    /// Of which the last answer was a refusal.
    refused: BTreeSet<String>,
    taken_over: u64,
    crashes: usize,
    not_taken_back: usize,
}

/// The process is dead.
struct Dead;

impl World {
    fn new(role: Role, seed: u64) -> Self {
        Self {
            start: Instant::now(),
            vault: Vault {
                role,
                leases: BTreeMap::new(),
                tokens: vec![None],
                fault: (Fault::Not, Hits::All),
                now: 0,
                failed_issues: Vec::new(),
                issued: 0,
            },
            held: Holdings::default(),
            secret: None,
            values: String::new(),
            versions: vec![(0, None)],
            behind: 0,
            told: 0,
            answers_lost: false,
            relabel: false,
            replaced: BTreeMap::new(),
            lost: BTreeSet::new(),
            verdict: Verdict::Verified,
            writes_refused: false,
            crash: None,
            ask: 0,
            clock_set_by: 0,
            seed,
            refused: BTreeSet::new(),
            taken_over: 0,
            crashes: 0,
            not_taken_back: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.vault.now)
    }

    fn moment(&self) -> Moment {
        let seconds = i64::try_from(self.vault.now).unwrap() + self.clock_set_by;
        let clock = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds);
        let now = self.now();
        Moment { clock, now }
    }

    fn dies_at(&mut self, point: Point) -> Result<(), Dead> {
        if self.crash != Some(point) {
            return Ok(());
        }
        self.crash = None;
        self.crashes += 1;
        self.held = Holdings::default();
        self.told = 0;
        self.refused.clear();
        self.taken_over = self.vault.now;
        let alive = self.vault.alive().into_iter();
        let lost: Vec<String> = alive.filter(|id| !self.is_on_record(id)).collect();
        self.lost.extend(lost);
        Err(Dead)
    }

    fn is_on_record(&self, id: &str) -> bool {
        let records = self.secret.iter();
        let issued = records.flat_map(|records| {
            let held = records.held.values().map(|record| &record.issued);
            held.chain(records.superseded.iter().map(|ended| &ended.issued))
        });
        issued.into_iter().any(|issued| id_of(issued) == id)
    }

    fn terms(&self) -> Terms {
        let parent = self.held.sources.get(SOURCE);
        let parent = parent.and_then(|holding| holding.record.issued.parent());
        let ends = parent.and_then(|parent| self.vault.tokens[parent.parse::<usize>().unwrap()]);
        let at = |seconds| self.start + Duration::from_secs(seconds);
        let ends = ends.map(|(since, end)| Parent::Ends {
            since: at(since),
            at: at(end),
        });
        Terms {
            renew_at: RENEW_AT,
            check_every: INTERVAL,
            parent: ends.unwrap_or(Parent::Lives),
        }
    }

    /// The Secret as this process sees it.
    fn seen(&self) -> (usize, Option<Records>) {
        let shown = |(since, _): &(u64, _)| since + self.behind <= self.vault.now;
        let shown = self.versions.iter().rposition(shown).unwrap_or_default();
        let number = shown.max(self.told);
        (number, self.versions[number].1.clone())
    }

    fn agrees(&self) -> bool {
        self.held.agreed == agreed(self.versions.len() - 1)
    }

    fn decide(&mut self) -> Todo {
        let secret = self.seen().1;
        let keys = secret.iter().flat_map(|records| records.held.values());
        let intact = keys.flat_map(|record| record.keys.values().cloned());
        let intact: BTreeSet<String> = intact.collect();
        let ask = self.ask.to_string();
        let wanted = Wanted {
            ask: &ask,
            rotate: None,
            terms: self.terms(),
            vault: None,
            keys: &KeysSpec::default(),
            intact: Some(&intact),
        };
        let now = self.now();
        self.held.decide(SOURCE, &wanted, now)
    }

    /// One pass; says when the next is due.
    fn pass(&mut self) -> Tried<Instant> {
        let began = self.vault.now;
        let next = match self.try_pass()? {
            Ok(next) => next,
            Err(Dead) => self.now() + Duration::from_secs(1),
        };
        let spent = self.vault.now > began;
        prop_assert!(next > self.now() || spent, "the next pass is due at once");
        Ok(next)
    }

    fn try_pass(&mut self) -> Tried<Result<Instant, Dead>> {
        let (number, records) = self.seen();
        if self.held.agreed != agreed(number) {
            let (moment, proven) = (self.moment(), records.is_some());
            let records = records.unwrap_or_default();
            let live = Believed { records, proven };
            self.held.agree(live, INTERVAL, moment, self.seed);
            self.held.agreed = agreed(number);
        }
        self.give_up_stuck();
        let mut next = self.now() + INTERVAL;
        let mut issue = None;
        for _ in 0..super::MOST_STEPS {
            match self.decide() {
                Todo::Wait(until) => {
                    prop_assert!(until > self.now(), "waits for the past");
                    next = next.min(until);
                    break;
                }
                Todo::LookUp => self.look_up(),
                Todo::Renew => self.renew()?,
                Todo::Issue(need) => {
                    issue = Some(need);
                    break;
                }
            }
        }
        if let Some(need) = issue {
            self.issue(need)?;
            next = next.min(self.now() + Duration::from_secs(1));
            if let Err(Dead) = self.dies_at(Point::AfterIssue) {
                return Ok(Err(Dead));
            }
        }
        if self.held.is_in_hand() || self.relabel && !self.held.sources.is_empty() {
            if let Err(Dead) = self.try_write() {
                return Ok(Err(Dead));
            }
            if self.held.is_in_hand() || self.relabel {
                next = next.min(self.now() + Duration::from_secs(20));
            }
        }
        Ok(self.end()?.map(|at| at.map_or(next, |at| at.min(next))))
    }

    fn held_id(&self) -> String {
        id_of(&self.held.sources[SOURCE].record.issued).to_owned()
    }

    fn told(&mut self, asked: Asked, error: &VaultError) {
        let (id, now) = (self.held_id(), self.now());
        let outage = error.concerns_connection();
        let lease = self
            .held
            .sources
            .get_mut(SOURCE)
            .unwrap()
            .lease_mut()
            .unwrap();
        if says_gone(error) {
            lease.gone();
        } else {
            lease.failed(asked, error, now);
            self.refused.remove(&id);
            self.refused.extend((!outage).then_some(id));
        }
    }

    fn look_up(&mut self) {
        let (id, asked) = (self.held_id(), self.now());
        match self.vault.look_up(&id) {
            Ok((left, renewable)) => {
                let lease = self
                    .held
                    .sources
                    .get_mut(SOURCE)
                    .unwrap()
                    .lease_mut()
                    .unwrap();
                lease.looked_up(Duration::from_secs(left), renewable, asked);
                self.refused.remove(&id);
            }
            Err(error) => self.told(Asked::LookUp, &error),
        }
    }

    fn renew(&mut self) -> Tried<()> {
        let (id, asked) = (self.held_id(), self.now());
        let lease = self.held.sources[SOURCE].lease().unwrap();
        let in_time = lease.expires().is_some_and(|end| asked < end);
        prop_assert!(in_time, "a renewal after expiry");
        match self.vault.renew(&id, lease.full().as_secs()) {
            Ok(ttl) => {
                let lease = self
                    .held
                    .sources
                    .get_mut(SOURCE)
                    .unwrap()
                    .lease_mut()
                    .unwrap();
                lease.renewed(Duration::from_secs(ttl), true, asked);
                self.refused.remove(&id);
            }
            Err(error) => self.told(Asked::Renewal, &error),
        }
        Ok(())
    }

    /// Whether what is held may be replaced for this reason.
    fn may_replace(&self, need: Need) -> bool {
        let Need::Lease(why) = need else {
            return match need {
                Need::First => self.seen().1.is_none(),
                Need::AskChanged => true,
                Need::Requested
                | Need::ValuesLost
                | Need::Polled
                | Need::Ageing
                | Need::Lease(_) => false,
            };
        };
        let id = self.held_id();
        let (lease, now, role) = (&self.vault.leases[&id], self.vault.now, self.vault.role);
        let left = lease.expires.saturating_sub(now);
        let lately = now.saturating_sub(self.taken_over);
        match why {
            Why::Gone => !self.vault.lives(&id),
            Why::Expired => now + SLACK >= lease.expires,
            Why::Ending => !role.renewable || lease.most < now + role.ttl + SLACK,
            Why::ParentEnding => self.vault.tokens[lease.parent].is_some(),
            Why::RenewalRefused => {
                let known = self.held.sources[SOURCE].lease().unwrap().expires();
                let patient = known.is_none() && lately * 20 >= role.ttl;
                self.refused.contains(&id) && (patient || left * 9 <= role.ttl + 9 * SLACK)
            }
        }
    }

    fn issue(&mut self, need: Need) -> Tried<()> {
        prop_assert!(
            self.may_replace(need),
            "{need:?} is no reason to replace it"
        );
        self.take_back();
        let asked = self.now();
        match self.vault.issue() {
            Ok((id, parent)) => {
                let ttl = self.vault.role.ttl;
                let renewable = self.vault.role.renewable;
                let record = Record {
                    ask: self.ask.to_string(),
                    issued: Issued {
                        namespace: None,
                        connection: None,
                        given: false,
                        what: What::Lease {
                            id,
                            ttl,
                            renewable,
                            parent: Some(parent.to_string()),
                        },
                    },
                    at: self.moment().clock,
                    keys: [("password".to_owned(), "password".to_owned())].into(),
                    rotate: None,
                    unproven: false,
                };
                let previous = self.held.sources.remove(SOURCE);
                let ttl = Duration::from_secs(ttl);
                let fresh = (BTreeMap::new(), Fresh::Lease { ttl, renewable });
                let holding = Holding::issued(record, fresh, previous, asked, self.seed);
                self.held.sources.insert(SOURCE.to_owned(), holding);
                self.held.failures.remove(SOURCE);
            }
            Err(error) => {
                let now = self.now();
                let holding = self.held.sources.get(SOURCE);
                let left = holding.and_then(|holding| holding.left(None, now));
                let failures = self.held.failures.entry(SOURCE.to_owned()).or_default();
                failures.failed(error, left, self.seed, now);
            }
        }
        Ok(())
    }

    fn take_back(&mut self) {
        let moment = self.moment();
        if let Some(TakenBack { issued, tried }) = self.held.take_back(SOURCE)
            && (tried || self.vault.revoke(id_of(&issued)).is_err())
        {
            let wait = Duration::from_secs(if tried { 60 } else { 0 });
            self.held.end(issued, moment.now + wait, moment);
            self.not_taken_back += 1;
        }
    }

    fn give_up_stuck(&mut self) {
        let (now, holding) = (self.now(), self.held.sources.get(SOURCE));
        if holding.is_some_and(|holding| holding.is_stuck(now)) {
            self.take_back();
            let failures = self.held.failures.entry(SOURCE.to_owned());
            failures.or_default().gave_up(now);
        }
    }

    fn try_write(&mut self) -> Result<(), Dead> {
        if self.writes_refused || !self.agrees() {
            return Ok(());
        }
        self.write();
        self.dies_at(Point::AfterWrite)?;
        if self.answers_lost {
            self.held.tried();
        } else {
            self.told = self.versions.len() - 1;
            self.relabel = false;
            let now = self.now();
            self.held.written(&[], true, now);
        }
        Ok(())
    }

    fn write(&mut self) {
        if self.held.is_in_hand() {
            self.values = self.held_id();
        }
        let records = self.held.records(true, &[]);
        for before in self.secret.iter().flat_map(|before| before.held.values()) {
            let id = id_of(&before.issued);
            if id_of(&records.held[SOURCE].issued) != id {
                self.replaced.insert(id.to_owned(), self.vault.now);
            }
        }
        self.versions.push((self.vault.now, Some(records.clone())));
        self.secret = Some(records);
    }

    fn end(&mut self) -> Tried<Result<Option<Instant>, Dead>> {
        let mut next: Option<Instant> = None;
        for index in 0..self.held.superseded.len() {
            let (now, seed) = (self.now(), self.seed);
            let ending = &mut self.held.superseded[index];
            if ending.done {
                continue;
            }
            let id = id_of(&ending.what.issued).to_owned();
            match ending.decide(self.verdict, now) {
                Next::Wait(until) => {
                    prop_assert!(until > now, "waits for the past");
                    next = Some(next.map_or(until, |next| next.min(until)));
                }
                Next::Over => {
                    ending.revoked();
                    let ends = self.vault.leases[&id].expires <= self.vault.now + SLACK;
                    prop_assert!(ends || !self.vault.lives(&id), "given up while it lives");
                }
                Next::Keep(what) => {
                    keep(&mut self.vault, ending, what, now)?;
                    next = Some(now + Duration::from_secs(1));
                }
                Next::Revoke => {
                    let live = self.secret.iter();
                    if live.into_iter().any(|live| live.names(&ending.what.issued)) {
                        ending.is_still_held(now);
                        continue;
                    }
                    self.may_revoke(&id)?;
                    let result = self.vault.revoke(&id);
                    if let Err(Dead) = self.dies_at(Point::AfterRevoke) {
                        return Ok(Err(Dead));
                    }
                    let now = self.now();
                    let ending = &mut self.held.superseded[index];
                    match result {
                        Ok(()) => ending.revoked(),
                        Err(error) => {
                            ending.failed(error.kind, seed, now);
                            next = Some(
                                next.unwrap_or(now + INTERVAL)
                                    .min(now + Duration::from_secs(1)),
                            );
                        }
                    }
                }
            }
        }
        Ok(Ok(next))
    }

    /// Whatever the Secret names is in use; what it named is until the workloads moved on.
    fn may_revoke(&self, id: &str) -> Tried<()> {
        let held = self.secret.iter().flat_map(|records| records.held.values());
        for record in held {
            prop_assert!(id_of(&record.issued) != id, "revoked while it is in use");
        }
        let Some(at) = self.replaced.get(id) else {
            return Ok(());
        };
        let ago = self.vault.now - at;
        let least = match self.verdict {
            Verdict::Verified => 0,
            Verdict::NoneSeen => 120,
            Verdict::Undecided => 3600,
            Verdict::Waiting => u64::MAX,
        };
        prop_assert!(ago >= least, "revoked {ago} s after it was replaced");
        Ok(())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Fault(fault, hits) => self.vault.fault = (fault, hits),
            Event::RevokedBehindOurBack => {
                for lease in self.vault.leases.values_mut() {
                    lease.revoked = true;
                }
            }
            Event::Crash(point) => {
                self.crash = Some(point);
                if point == Point::Now {
                    assert!(self.dies_at(point).is_err());
                }
            }
            Event::TokenEnds(left) => {
                let now = self.vault.now;
                if let Some(last) = self.vault.tokens.last_mut() {
                    *last = Some((now, now + left));
                }
                self.vault.tokens.push(None);
            }
            Event::WritesRefused(refused) => self.writes_refused = refused,
            Event::Verdict(verdict) => self.verdict = verdict,
            Event::AskChanged => self.ask += 1,
            Event::ClockSetBy(seconds) => self.clock_set_by += seconds,
            Event::AnswersLost(lost) => self.answers_lost = lost,
            Event::WatchBehind(seconds) => self.behind = seconds,
            Event::Relabelled => self.relabel = true,
        }
    }

    /// Lets time go by, with a pass whenever one is due.
    fn run(&mut self, seconds: u64, steady: bool) -> Tried<()> {
        let end = self.vault.now + seconds;
        let mut passes = 0;
        while self.vault.now < end {
            let next = self.pass()?;
            passes += 1;
            prop_assert!(passes < 200 + seconds / 2, "{passes} passes in {seconds} s");
            self.check(steady)?;
            let wait = next.saturating_duration_since(self.now());
            // The model counts whole seconds, and is a little late, as the real one is.
            let next = self.vault.now + wait.as_secs() + 1;
            self.vault.now = next.min(end.max(self.vault.now + 1));
        }
        Ok(())
    }

    fn check(&self, steady: bool) -> Tried<()> {
        let mut known: BTreeSet<String> = self.lost.clone();
        let superseded = self.held.superseded.iter();
        known.extend(superseded.map(|ending| id_of(&ending.what.issued).to_owned()));
        for holding in self.held.sources.values() {
            known.insert(id_of(&holding.record.issued).to_owned());
            let previous = holding
                .in_hand
                .as_ref()
                .and_then(|hand| hand.previous.as_ref());
            known.extend(previous.map(|held| id_of(&held.record.issued).to_owned()));
        }
        if self.held.agreed != Agreed::Not {
            for id in self.vault.alive() {
                let known = known.contains(&id) || self.is_on_record(&id);
                prop_assert!(known, "nobody knows of {id}");
            }
        }
        let named = self.secret.iter().flat_map(|records| records.held.values());
        for record in named {
            prop_assert_eq!(id_of(&record.issued), &self.values, "of another lease");
        }
        if steady {
            let used = self.secret.iter().flat_map(|records| records.held.values());
            for record in used {
                let id = id_of(&record.issued);
                prop_assert!(self.vault.lives(id), "{id} died while Vault was well");
            }
            // What was replaced and may be in use, as long as Vault extends it.
            for ending in &self.held.superseded {
                let id = id_of(&ending.what.issued);
                let lease = &self.vault.leases[id];
                let token = self.vault.tokens[lease.parent];
                let ends = lease.revoked
                    || !self.vault.role.renewable
                    || self.vault.now + SLACK >= lease.most
                    || token.is_some_and(|(_, at)| self.vault.now + SLACK >= at);
                prop_assert!(
                    ends || self.vault.lives(id),
                    "{id} died while it may be in use"
                );
            }
        }
        Ok(())
    }
}

fn agreed(number: usize) -> Agreed {
    match number {
        0 => Agreed::NoSecret,
        number => Agreed::Secret("u".to_owned(), number.to_string()),
    }
}

/// Looks up or renews what was replaced.
fn keep(vault: &mut Vault, ending: &mut Ending, what: Asked, asked: Instant) -> Tried<()> {
    let id = id_of(&ending.what.issued).to_owned();
    let lease = ending.lease_mut().unwrap();
    let answer = match what {
        Asked::Renewal => {
            let in_time = lease.expires().is_some_and(|end| asked < end);
            prop_assert!(in_time, "a renewal after expiry");
            let answer = vault.renew(&id, lease.full().as_secs());
            answer.map(|ttl| lease.renewed(Duration::from_secs(ttl), true, asked))
        }
        Asked::LookUp => {
            let answer = vault.look_up(&id);
            answer.map(|(left, renewable)| {
                lease.looked_up(Duration::from_secs(left), renewable, asked);
            })
        }
    };
    match answer {
        Err(error) if says_gone(&error) => lease.gone(),
        Err(error) => lease.failed(what, &error, asked),
        Ok(()) => {}
    }
    Ok(())
}

fn id_of(issued: &Issued) -> &str {
    match &issued.what {
        What::Lease { id, .. } => id,
        What::Certificate { .. } | What::Unleased {} => "",
    }
}

fn role() -> impl Strategy<Value = Role> {
    (60..7200_u64, 1..8_u64, any::<bool>()).prop_map(|(ttl, lives, renewable)| Role {
        ttl,
        most: if renewable { ttl * lives } else { ttl },
        renewable,
    })
}

fn fault() -> impl Strategy<Value = Event> {
    let fault = prop_oneof![
        Just(Fault::Not),
        Just(Fault::Not),
        Just(Fault::Denied),
        Just(Fault::Broken),
        Just(Fault::Sealed),
        Just(Fault::Unreachable),
        (1..10_u64).prop_map(Fault::Slow),
    ];
    let hits = prop_oneof![
        Just(Hits::All),
        Just(Hits::Issue),
        Just(Hits::Keep),
        Just(Hits::Revoke)
    ];
    (fault, hits).prop_map(|(fault, hits)| Event::Fault(fault, hits))
}

/// What happens although Vault is well.
fn harmless() -> impl Strategy<Value = Event> {
    let point = prop_oneof![
        Just(Point::Now),
        Just(Point::AfterIssue),
        Just(Point::AfterWrite),
        Just(Point::AfterRevoke)
    ];
    let verdict = prop_oneof![
        Just(Verdict::Verified),
        Just(Verdict::NoneSeen),
        Just(Verdict::Undecided),
        Just(Verdict::Waiting)
    ];
    prop_oneof![
        point.prop_map(Event::Crash),
        (3600..7200_u64).prop_map(Event::TokenEnds),
        verdict.prop_map(Event::Verdict),
        Just(Event::AskChanged),
        (-3000..3000_i64).prop_map(Event::ClockSetBy),
    ]
}

fn anything() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => fault(),
        3 => harmless(),
        1 => Just(Event::RevokedBehindOurBack),
        1 => any::<bool>().prop_map(Event::WritesRefused),
        1 => any::<bool>().prop_map(Event::AnswersLost),
        1 => (0..1200_u64).prop_map(Event::WatchBehind),
        1 => Just(Event::Relabelled),
        1 => (1..600_u64).prop_map(Event::TokenEnds),
    ]
}

fn schedule<S: Strategy<Value = Event>>(event: S) -> impl Strategy<Value = Vec<(u64, Event)>> {
    proptest::collection::vec((1..3000_u64, event), 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Faults, crashes, revocations behind our back: nothing is renewed too late, replaced without need, revoked in use or
    /// forgotten, and once all is well again exactly one lease lives, which is the one that the Secret names.
    #[test]
    fn no_schedule_breaks_the_rules(role in role(), seed: u64, events in schedule(anything())) {
        let mut world = World::new(role, seed);
        for (wait, event) in events {
            world.run(wait, false)?;
            world.happen(event);
        }
        let failed = &world.vault.failed_issues;
        for from in failed {
            let hour = failed.iter().filter(|at| (*from..from + 3600).contains(*at));
            let count = hour.count();
            prop_assert!(count <= 150 + 20 * world.crashes, "{count} vain requests in an hour");
        }
        world.vault.fault = (Fault::Not, Hits::All);
        world.happen(Event::WritesRefused(false));
        world.happen(Event::AnswersLost(false));
        world.happen(Event::WatchBehind(0));
        world.happen(Event::Verdict(Verdict::Verified));
        world.crash = None;
        // What was given up is not issued for half an hour.
        world.run(3600, false)?;
        world.pass()?;
        let alive: BTreeSet<String> = world.vault.alive().difference(&world.lost).cloned().collect();
        let held = BTreeSet::from([world.held_id()]);
        prop_assert_eq!(&alive, &held);
        let written = world.secret.as_ref().map(|records| id_of(&records.held[SOURCE].issued));
        prop_assert_eq!(written, held.first().map(String::as_str));
        // What was taken back in vain while nothing could be written is on no record either.
        prop_assert!(world.lost.len() <= world.crashes + world.not_taken_back);
    }

    /// While Vault is well the lease that the Secret names lives, whoever restarts and whichever token ends.
    #[test]
    fn what_is_in_use_lives(role in role(), seed: u64, events in schedule(harmless())) {
        let mut world = World::new(role, seed);
        world.run(1, false)?;
        for (wait, event) in events {
            world.run(wait, true)?;
            world.happen(event);
        }
        world.run(3 * role.ttl, true)?;
    }

    /// A process that ends and begins again at any time has nothing issued that would not have been issued anyway.
    #[test]
    fn restarts_issue_nothing(seed: u64, ttl in 60..7200_u64, waits in proptest::collection::vec(1..3000_u64, 1..20)) {
        let mut world = World::new(Role { ttl, most: 1_000_000, renewable: true }, seed);
        for wait in waits {
            world.run(wait, true)?;
            // A process that is not there renews nothing: it is soon back.
            world.happen(Event::Crash(Point::Now));
        }
        world.run(ttl, true)?;
        prop_assert_eq!(world.vault.issued, 1);
    }
}
