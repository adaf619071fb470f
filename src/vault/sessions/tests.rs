//! Effects: loopback HTTP — one token per identity, and what happens when it dies.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::*;
use crate::vault::backoff;
use crate::vault::error::VaultErrorKind;
use crate::vault::identity::{IdentityParts, Remedy};
use crate::vault::path::{MountPath, SecretPath};
use crate::vault::testing::{CANARY, Clock, Credentials, Kind, TestVault, kv2};

const LOGIN: &str = "POST auth/kubernetes/login";
const LOOKUP: &str = "GET auth/token/lookup-self";
const RENEW: &str = "POST auth/token/renew-self";
const REVOKE: &str = "POST auth/token/revoke-self";
const READ: &str = "GET secret/data/a";

fn read() -> Request {
    let mount = MountPath::parse("secret").unwrap();
    Request::kv2_read(&mount, &SecretPath::parse("a").unwrap(), None)
}

fn vault() -> TestVault {
    let vault = TestVault::start();
    vault.put("secret/data/a", 200, &kv2("x", 1));
    vault
}

/// Lets the maintenance go to sleep again.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn fifty_callers_are_one_login() {
    let vault = vault();
    vault.model().delay = Duration::from_millis(10);
    let (identity, credentials) = vault.identity("shop/default");
    let sessions = Sessions::new(SessionStore::default());
    let results =
        join_all((0..50).map(|_| async { sessions.send(&identity, &read()).await })).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!((vault.count(LOGIN), credentials.asked()), (1, 1));
    assert_eq!(vault.count(READ), 50);
}

#[tokio::test]
async fn each_identity_has_its_own_token() {
    let vault = vault();
    let sessions = Sessions::new(SessionStore::default());
    for subject in ["shop/default", "bank/default", "shop/default"] {
        let (identity, _) = vault.identity(subject);
        sessions.send(&identity, &read()).await.unwrap();
    }
    assert_eq!((vault.count(LOGIN), sessions.count()), (2, 2));
}

#[tokio::test]
async fn a_token_that_died_is_replaced_once_for_all() {
    let clock = Clock::stop();
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let sessions = Sessions::new(SessionStore::default());
    sessions.send(&identity, &read()).await.unwrap();
    clock.advance(Duration::from_mins(1)).await;
    vault.kill_tokens();
    let results =
        join_all((0..20).map(|_| async { sessions.send(&identity, &read()).await })).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!((vault.count(LOOKUP), vault.count(LOGIN)), (1, 2));
}

#[tokio::test]
async fn a_refusal_of_a_living_token_is_real() {
    let clock = Clock::stop();
    let vault = vault();
    vault.put("secret/data/a", 403, r#"{"errors":["permission denied"]}"#);
    let (identity, _) = vault.identity("shop/default");
    let sessions = Sessions::new(SessionStore::default());
    for _ in 0..10 {
        let error = sessions.send(&identity, &read()).await.unwrap_err();
        assert_eq!(error.kind, VaultErrorKind::Denied);
        clock.advance(Duration::from_secs(1)).await;
    }
    assert_eq!((vault.count(LOOKUP), vault.count(LOGIN)), (1, 1));
    assert_eq!(vault.count(READ), 10, "nothing is repeated");
}

#[tokio::test]
async fn where_lookups_are_forbidden_refusals_do_not_cost_a_login_each() {
    let clock = Clock::stop();
    let vault = vault();
    vault.put("secret/data/a", 403, r#"{"errors":["permission denied"]}"#);
    vault.model().lookups_refused = true;
    let (identity, _) = vault.identity("shop/default");
    let sessions = Sessions::new(SessionStore::default());
    for _ in 0..60 {
        assert!(sessions.send(&identity, &read()).await.is_err());
        clock.advance(Duration::from_secs(10)).await;
    }
    assert!(vault.count(LOGIN) <= 8, "{} logins", vault.count(LOGIN));
}

#[tokio::test]
async fn a_refused_password_is_not_tried_until_its_user_is_locked_out() {
    let clock = Clock::stop();
    let vault = vault();
    vault.model().logins_refused = true;
    let (identity, _) = vault.identity_with("deploy", Credentials::new(Kind::Password));
    let sessions = Sessions::new(SessionStore::default());
    for _ in 0..60 {
        let error = sessions.send(&identity, &read()).await.unwrap_err();
        assert_eq!(error.kind, VaultErrorKind::Denied);
        clock.advance(Duration::from_secs(15)).await;
    }
    assert_eq!(vault.count("POST auth/ldap/login/deploy"), 2);

    // A Vault that is away says nothing about the password.
    vault.model().sealed = true;
    clock.advance(Duration::from_mins(10)).await;
    let error = sessions.send(&identity, &read()).await.unwrap_err();
    assert_eq!(error.kind, VaultErrorKind::Sealed);
    let wait = error.retry_after.unwrap_or_default();
    assert!(wait < Duration::from_mins(2), "{wait:?}");
}

#[tokio::test]
async fn what_changes_something_is_never_repeated() {
    let clock = Clock::stop();
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let sessions = Sessions::new(SessionStore::default());
    sessions.send(&identity, &read()).await.unwrap();
    clock.advance(Duration::from_mins(1)).await;
    vault.kill_tokens();
    let error = sessions.send(&identity, &Request::token_renew()).await;
    assert_eq!(error.unwrap_err().kind, VaultErrorKind::Denied);
    assert_eq!(vault.count(RENEW), 1);
    sessions.send(&identity, &read()).await.unwrap();
}

#[tokio::test]
async fn a_failed_login_is_not_tried_again_at_once() {
    let clock = Clock::stop();
    let vault = vault();
    vault.model().logins_refused = true;
    let (identity, credentials) = vault.identity("shop/default");
    let sessions = Sessions::new(SessionStore::default());
    for _ in 0..20 {
        let error = sessions.send(&identity, &read()).await.unwrap_err();
        assert_eq!(
            (error.kind, error.operation),
            (VaultErrorKind::Denied, "login")
        );
        assert!(!format!("{error:?} {error}").contains(CANARY));
    }
    assert_eq!((vault.count(LOGIN), credentials.asked()), (1, 1));
    vault.model().logins_refused = false;
    clock.advance(Duration::from_secs(1)).await;
    sessions.send(&identity, &read()).await.unwrap();
}

#[tokio::test]
async fn a_missing_credential_is_told_and_not_asked_for_again_and_again() {
    let clock = Clock::stop();
    let vault = vault();
    for (remedy, asked_after_10_s) in [(Remedy::Retry, 2), (Remedy::Edit, 1)] {
        let source = Credentials::new(Kind::Missing(remedy));
        let (identity, credentials) = vault.identity_with(&format!("{remedy:?}"), source);
        let sessions = Sessions::new(SessionStore::default());
        for _ in 0..3 {
            let error = sessions.send(&identity, &read()).await.unwrap_err();
            assert_eq!(error.kind, VaultErrorKind::CredentialUnavailable);
            assert_eq!(error.detail, "ServiceAccount default is missing");
        }
        clock.advance(Duration::from_secs(10)).await;
        assert!(sessions.send(&identity, &read()).await.is_err());
        assert_eq!(credentials.asked(), asked_after_10_s);
    }
}

#[tokio::test]
async fn during_an_outage_no_credential_is_asked_for() {
    let vault = vault();
    vault.model().sealed = true;
    let (identity, credentials) = vault.identity("shop/default");
    let sessions = Sessions::new(SessionStore::default());
    let error = sessions.send(&identity, &read()).await.unwrap_err();
    assert_eq!(error.kind, VaultErrorKind::Sealed);
    let (other, other_credentials) = vault.identity("bank/default");
    let other = Identity {
        transport: identity.transport.clone(),
        ..other
    };
    let error = sessions.send(&other, &read()).await.unwrap_err();
    assert!(error.held_back);
    assert_eq!((credentials.asked(), other_credentials.asked()), (1, 0));
}

#[tokio::test]
async fn a_static_token_is_used_renewed_and_never_revoked() {
    let clock = Clock::stop();
    let vault = vault();
    vault.model().tokens.insert(CANARY.to_owned());
    let source = Credentials::new(Kind::Static(CANARY));
    let (identity, _) = vault.identity_with("shop/default", source);
    let sessions = Arc::new(Sessions::new(SessionStore::default()));
    sessions.used_by("shop/app", Some(&identity.key));
    sessions.send(&identity, &read()).await.unwrap();
    assert_eq!((vault.count(LOOKUP), vault.count(LOGIN)), (1, 0));
    clock.advance(Duration::from_mins(40)).await;
    sessions.send(&identity, &read()).await.unwrap();
    assert_eq!(vault.count(RENEW), 1);
    clock.advance(IDLE).await;
    sessions.tend().await;
    assert_eq!((sessions.count(), vault.count(REVOKE)), (0, 0));
}

#[tokio::test]
async fn the_maintenance_renews_then_drops_and_revokes() {
    let clock = Clock::stop();
    let vault = vault();
    vault.model().login_ttl = 600;
    vault.model().renewed_ttl = 600;
    let (identity, _) = vault.identity("shop/default");
    let sessions = Arc::new(Sessions::new(SessionStore::default()));
    let stop = CancellationToken::new();
    let (worker, stopped) = (sessions.clone(), stop.clone());
    let task = tokio::spawn(async move { worker.maintain(stopped).await });
    sessions.used_by("shop/app", Some(&identity.key));
    sessions.send(&identity, &read()).await.unwrap();
    for renewals in 1..=2 {
        settle().await;
        clock.advance(Duration::from_secs(400)).await;
        let renewed = || vault.count(RENEW) == renewals && sessions.due(now()).is_empty();
        clock.wait_until("renewed", renewed).await;
    }
    settle().await;
    clock.advance(Duration::from_secs(101)).await;
    clock
        .wait_until("revoked", || vault.count(REVOKE) == 1)
        .await;
    clock.wait_until("dropped", || sessions.count() == 0).await;
    assert_eq!(vault.count(LOGIN), 1);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_token_in_use_outlives_the_maintenance() {
    let vault = vault();
    let sessions = Sessions::new(SessionStore::default());
    let (identity, _) = vault.identity("shop/default");
    sessions.send(&identity, &read()).await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    sessions.maintain(stop).await;
    assert_eq!((vault.count(REVOKE), vault.model().tokens.len()), (0, 1));
}

#[tokio::test]
async fn the_end_revokes_the_tokens_without_leases_but_no_other() {
    let vault = vault();
    let (free, _) = vault.identity("shop/free");
    let (bears, _) = vault.identity("shop/bears");
    vault.model().tokens.insert(CANARY.to_owned());
    let source = Credentials::new(Kind::Static(CANARY));
    let (given, _) = vault.identity_with("shop/given", source);
    let sessions = Sessions::new(SessionStore::default());
    for identity in [&free, &given] {
        sessions.send(identity, &read()).await.unwrap();
    }
    let (_, parent) = sessions.issue(&bears, &read()).await.unwrap();
    let parent = parent.unwrap();
    sessions.depend("shop/app", &bears, BTreeSet::from([parent.as_str()]));
    sessions.end().await;
    assert_eq!((vault.count(REVOKE), vault.model().tokens.len()), (1, 2));
}

/// `identity` after its auth object was edited, or the Secret with its credential.
fn edited(identity: &Identity) -> Identity {
    let parts = IdentityParts {
        connection: "main".to_owned(),
        server: "1".to_owned(),
        auth: "default".to_owned(),
        subject: "shop/default".to_owned(),
        revision: "2".to_owned(),
    };
    Identity {
        key: IdentityKey::new(parts),
        ..identity.clone()
    }
}

#[tokio::test]
async fn a_token_that_nobody_uses_is_revoked_soon() {
    let clock = Clock::stop();
    let vault = vault();
    let (old, _) = vault.identity("shop/default");
    let new = edited(&old);
    let sessions = Sessions::new(SessionStore::default());
    for owner in ["shop/a", "shop/b"] {
        sessions.used_by(owner, Some(&old.key));
        sessions.send(&old, &read()).await.unwrap();
    }
    sessions.used_by("shop/a", Some(&new.key));
    sessions.send(&new, &read()).await.unwrap();
    clock.advance(UNUSED).await;
    sessions.tend().await;
    assert_eq!(vault.count(REVOKE), 0, "shop/b uses it");
    sessions.used_by("shop/b", None);
    assert!(sessions.next_date().unwrap() <= now());
    sessions.tend().await;
    assert_eq!((vault.count(REVOKE), sessions.count()), (1, 1));
    sessions.forget("shop/a");
    sessions.tend().await;
    assert_eq!((vault.count(REVOKE), sessions.count()), (2, 0));
    assert_eq!(vault.count(LOGIN), 2);
}

#[tokio::test]
async fn a_token_that_nobody_uses_lives_until_the_last_lease_left_it() {
    let clock = Clock::stop();
    let vault = vault();
    let (old, _) = vault.identity("shop/default");
    let new = edited(&old);
    let sessions = Sessions::new(SessionStore::default());
    sessions.used_by("shop/app", Some(&old.key));
    let (_, parent) = sessions.issue(&old, &read()).await.unwrap();
    let parent = parent.unwrap();
    sessions.depend("shop/app", &old, BTreeSet::from([parent.as_str()]));
    sessions.used_by("shop/app", Some(&new.key));
    sessions.depend("shop/app", &new, BTreeSet::from([parent.as_str()]));
    for renewals in 1..=3 {
        clock.advance(Duration::from_mins(45)).await;
        sessions.tend().await;
        assert_eq!((vault.count(RENEW), vault.count(REVOKE)), (renewals, 0));
    }
    assert_eq!(sessions.parent(&parent), Parent::Lives);
    sessions.depend("shop/app", &new, BTreeSet::new());
    assert!(sessions.next_date().unwrap() <= now());
    sessions.tend().await;
    assert_eq!((vault.count(REVOKE), vault.count(LOGIN)), (1, 1));
}

#[tokio::test]
async fn a_token_that_is_spared_is_dropped_and_not_revoked() {
    let clock = Clock::stop();
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let sessions = Sessions::new(SessionStore::default());
    sessions.used_by("shop/app", Some(&identity.key));
    let (_, parent) = sessions.issue(&identity, &read()).await.unwrap();
    let parent = parent.unwrap();
    sessions.depend("shop/app", &identity, BTreeSet::from([parent.as_str()]));
    sessions.spare("shop/app");
    sessions.forget("shop/app");
    clock.advance(UNUSED).await;
    sessions.tend().await;
    assert_eq!((vault.count(REVOKE), sessions.count()), (0, 0));
}

#[tokio::test]
async fn nothing_shows_a_token() {
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let sessions = Sessions::new(SessionStore::default());
    sessions.send(&identity, &read()).await.unwrap();
    let all = format!("{sessions:?} {identity:?} {}", identity.key);
    assert!(!all.contains(CANARY));
    assert!(all.ends_with("shop/default by default at main"));
}

/// A token is kept exactly while somebody depends on it, whoever comes and goes in whichever order.
#[tokio::test]
async fn a_token_is_kept_while_somebody_depends_on_it() {
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let mut dependents = Dependents::default();
    let mut model: HashMap<String, BTreeSet<&str>> = HashMap::new();
    let all = ["a", "b", "c", "d"];
    for step in 0..2000 {
        let random = backoff::seed_for(7, step);
        let owner = format!("owner-{}", random % 5);
        let needs = |(bit, _): &(usize, &&str)| random >> (8 + bit) & 1 == 1;
        let needed = all.iter().enumerate().filter(needs);
        let needed: BTreeSet<&str> = needed.map(|(_, name)| *name).collect();
        for new in dependents.set(&owner, needed.clone()).into_iter().flatten() {
            let before = model.values().any(|names| names.contains(&*new));
            assert!(!before, "step {step}: {new} is kept already");
            dependents.keep(new, (&identity, None), now());
        }
        model.insert(owner, needed);
        for name in all {
            let needed = model.values().any(|names| names.contains(name));
            assert_eq!(
                dependents.get(name).is_some(),
                needed,
                "step {step}: {name}"
            );
        }
        assert_eq!(
            dependents.renewals().count(),
            all.iter()
                .filter(|name| dependents.get(name).is_some())
                .count()
        );
    }
}

/// A store in memory, which every process finds again.
#[derive(Clone, Default)]
struct Shelf {
    tokens: Arc<Mutex<BTreeMap<String, Sensitive>>>,
    writes: Arc<std::sync::atomic::AtomicUsize>,
    fails: Arc<std::sync::atomic::AtomicBool>,
}

impl crate::vault::stored::TokenStore for Shelf {
    fn digest(&self, parts: &[String]) -> String {
        format!("{:x}", backoff::seed_of(&parts))
    }

    fn write(
        &self,
        tokens: BTreeMap<String, Sensitive>,
    ) -> futures::future::BoxFuture<'_, Result<(), String>> {
        use std::sync::atomic::Ordering::SeqCst;
        self.writes.fetch_add(1, SeqCst);
        let result = if self.fails.load(SeqCst) {
            Err("away".to_owned())
        } else {
            *self.tokens.lock().unwrap() = tokens;
            Ok(())
        };
        Box::pin(std::future::ready(result))
    }
}

impl Shelf {
    /// Another process.
    fn open(&self) -> Sessions {
        let found = self.tokens.lock().unwrap().clone();
        Sessions::with_stored(Stored::new(Box::new(self.clone()), found))
    }

    /// How often it was written, and how many tokens there are.
    fn counts(&self) -> (usize, usize) {
        let writes = self.writes.load(std::sync::atomic::Ordering::SeqCst);
        (writes, self.tokens.lock().unwrap().len())
    }
}

#[tokio::test]
async fn a_stored_token_is_looked_up_and_used_by_the_next_process_without_a_write() {
    let clock = Clock::stop();
    let vault = vault();
    let (identity, credentials) = vault.identity("shop/default");
    let shelf = Shelf::default();
    shelf.open().send(&identity, &read()).await.unwrap();
    for lookups in 1..=2 {
        let sessions = shelf.open();
        sessions.used_by("shop/app", Some(&identity.key));
        sessions.send(&identity, &read()).await.unwrap();
        assert_eq!((vault.count(LOGIN), vault.count(LOOKUP)), (1, lookups));
        clock.advance(Duration::from_mins(14)).await;
        sessions.tend().await;
        sessions.end().await;
        assert_eq!((shelf.counts(), vault.count(REVOKE)), ((1, 1), 0));
    }
    assert_eq!(credentials.asked(), 1);
    let shown = format!("{:?}", shelf.open());
    assert!(!shown.contains(CANARY), "{shown}");

    vault.kill_tokens();
    let sessions = shelf.open();
    sessions.send(&identity, &read()).await.unwrap();
    assert_eq!((vault.count(LOGIN), shelf.counts()), (2, (2, 1)));
}

#[tokio::test]
async fn an_outage_is_no_reason_to_give_up_a_stored_token() {
    let clock = Clock::stop();
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let shelf = Shelf::default();
    shelf.open().send(&identity, &read()).await.unwrap();
    let sessions = shelf.open();
    vault.model().sealed = true;
    assert!(sessions.send(&identity, &read()).await.is_err());
    vault.model().sealed = false;
    clock.advance(Duration::from_mins(2)).await;
    sessions.send(&identity, &read()).await.unwrap();
    assert_eq!((vault.count(LOGIN), shelf.counts()), (1, (1, 1)));
}

#[tokio::test]
async fn what_nobody_uses_is_stored_no_longer_and_what_leases_need_is() {
    let clock = Clock::stop();
    let vault = vault();
    let (old, _) = vault.identity("shop/default");
    let new = edited(&old);
    let (gone, _) = vault.identity("bank/default");
    let shelf = Shelf::default();
    let first = shelf.open();
    let (_, parent) = first.issue(&old, &read()).await.unwrap();
    let parent = parent.unwrap();
    first.send(&gone, &read()).await.unwrap();
    assert_eq!(shelf.counts(), (2, 2));

    let sessions = shelf.open();
    sessions.used_by("shop/app", Some(&new.key));
    sessions.depend("shop/app", &new, BTreeSet::from([parent.as_str()]));
    sessions.send(&new, &read()).await.unwrap();
    sessions.tend().await;
    assert_eq!(shelf.counts(), (3, 3));
    assert_eq!((vault.count(LOGIN), vault.count(RENEW)), (3, 1));
    clock.advance(Duration::from_mins(16)).await;
    sessions.send(&new, &read()).await.unwrap();
    sessions.tend().await;
    assert_eq!(
        shelf.counts(),
        (4, 2),
        "nobody came for that of bank/default"
    );
    sessions.depend("shop/app", &new, BTreeSet::new());
    sessions.tend().await;
    assert_eq!(shelf.counts(), (5, 1));
    assert_eq!(vault.count("POST auth/token/renew-accessor"), 0);
}

/// Objects come and go while the store is tended; each side takes locks that the other takes, too.
#[tokio::test]
async fn depending_and_tending_do_not_wait_for_each_other() {
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let shelf = Shelf::default();
    let (_, parent) = shelf.open().issue(&identity, &read()).await.unwrap();
    let parent = parent.unwrap();
    for number in 0..200 {
        let token = (format!("a.b.{number}"), Sensitive::new(CANARY));
        shelf.tokens.lock().unwrap().extend([token]);
    }
    let sessions = Arc::new(shelf.open());
    let (done, both) = std::sync::mpsc::channel();
    let (depending, depended) = (Arc::clone(&sessions), done.clone());
    std::thread::spawn(move || {
        for _ in 0..1000 {
            depending.depend("shop/app", &identity, BTreeSet::from([parent.as_str()]));
            depending.depend("shop/app", &identity, BTreeSet::new());
        }
        depended.send(())
    });
    std::thread::spawn(move || {
        for _ in 0..1000 {
            futures::executor::block_on(sessions.tend());
        }
        done.send(())
    });
    for _ in 0..2 {
        let ended = both.recv_timeout(Duration::from_mins(1));
        assert!(ended.is_ok(), "they wait for each other");
    }
}

#[tokio::test]
async fn a_stored_token_is_sent_to_no_other_server() {
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let shelf = Shelf::default();
    let (_, parent) = shelf.open().issue(&identity, &read()).await.unwrap();
    let parent = parent.unwrap();
    let other = Identity {
        key: IdentityKey::new(IdentityParts {
            connection: "main".to_owned(),
            server: "2".to_owned(),
            auth: "default".to_owned(),
            subject: "shop/default".to_owned(),
            revision: "1".to_owned(),
        }),
        ..identity
    };
    let sessions = shelf.open();
    sessions.depend("shop/app", &other, BTreeSet::from([parent.as_str()]));
    sessions.tend().await;
    assert_eq!((vault.count(LOGIN), vault.count(RENEW)), (2, 0));
}

#[tokio::test]
async fn a_store_that_cannot_be_written_holds_nothing_up_and_is_written_later() {
    let clock = Clock::stop();
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let shelf = Shelf::default();
    let (other, _) = vault.identity("bank/default");
    shelf.fails.store(true, std::sync::atomic::Ordering::SeqCst);
    let sessions = shelf.open();
    sessions.used_by("shop/app", Some(&identity.key));
    sessions.send(&identity, &read()).await.unwrap();
    sessions.used_by("bank/app", Some(&other.key));
    sessions.send(&other, &read()).await.unwrap();
    shelf
        .fails
        .store(false, std::sync::atomic::Ordering::SeqCst);
    sessions.tend().await;
    assert_eq!(shelf.counts(), (1, 0), "not at once, whoever logs in");
    clock.advance(Duration::from_secs(10)).await;
    assert!(sessions.next_date().unwrap() <= now());
    sessions.tend().await;
    assert_eq!(shelf.counts(), (2, 2));
}

#[tokio::test]
async fn giving_up_revokes_what_is_stored_and_keeps_what_it_cannot_revoke() {
    let clock = Clock::stop();
    let vault = vault();
    let (identity, _) = vault.identity("shop/default");
    let (other, _) = vault.identity("bank/default");
    let moved = Identity {
        key: IdentityKey::new(IdentityParts {
            connection: "main".to_owned(),
            server: "2".to_owned(),
            auth: "default".to_owned(),
            subject: "bank/default".to_owned(),
            revision: "1".to_owned(),
        }),
        ..other
    };
    let shelf = Shelf::default();
    let before = shelf.open();
    before.send(&identity, &read()).await.unwrap();
    before.send(&moved, &read()).await.unwrap();
    let give_up = async || {
        let sessions = shelf.open();
        let told = sessions.give_up(BTreeMap::new(), vec![identity.clone()]);
        let told: Vec<_> = told.await.into_values().collect();
        (told.len(), told.into_iter().flatten().count())
    };
    vault.model().sealed = true;
    assert_eq!((give_up().await, shelf.counts()), ((2, 0), (2, 2)));
    vault.model().sealed = false;
    clock.advance(Duration::from_mins(2)).await;
    assert_eq!((give_up().await, shelf.counts()), ((2, 1), (3, 1)));
    assert_eq!(vault.model().tokens.len(), 1, "nobody may send the other");
}

/// A token that is stored may be the one with which another is revoked by its accessor.
#[tokio::test]
async fn giving_up_revokes_what_is_stored_last() {
    let vault = vault();
    let revoke_accessor = "auth/token/revoke-accessor";
    vault.put(revoke_accessor, 204, "");
    let (identity, _) = vault.identity("shop/default");
    let shelf = Shelf::default();
    shelf.open().send(&identity, &read()).await.unwrap();
    let parents = ["accessor-1", "another"].map(|accessor| (accessor.to_owned(), identity.clone()));
    let told = shelf.open().give_up(parents.into(), Vec::new()).await;
    assert!(told.values().all(Result::is_ok), "{told:?}");
    let seen = vault.model().seen.clone();
    let at = |line: &str| seen.iter().position(|seen| seen.ends_with(line));
    let (by_accessor, itself) = (at(revoke_accessor), at("auth/token/revoke-self"));
    assert!(by_accessor.is_some() && by_accessor < itself, "{seen:?}");
    assert_eq!(vault.count(LOGIN), 1);
}

#[tokio::test]
async fn a_given_token_that_is_refused_is_a_login_that_failed() {
    let vault = vault();
    let credentials = Credentials::new(Kind::Static("hvs.none"));
    let (identity, _) = vault.identity_with("deploy", credentials);
    let sessions = Sessions::new(SessionStore::default());
    let error = sessions.send(&identity, &read()).await.unwrap_err();
    assert_eq!(error.kind, VaultErrorKind::Denied);
    assert!(error.concerns_login(), "{error}");
}
