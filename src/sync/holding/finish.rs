//! Effects: Vault, apiserver. What is left to do for an object that is being deleted, or when the operator is uninstalled:
//! its leases are revoked first.

use std::{collections::BTreeMap, time::Duration};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{
    ending::{self, DELETION, Ending},
    holdings::Holdings,
    missing_policy,
    record::Issued,
    state::Holding,
};
use crate::{
    api::vault_secret::VaultSecret,
    names::{FINALIZER, FINALIZER_MANAGER, ObjectKey},
    sync::{
        Object, Syncer,
        apply::{self, ApplyError},
        outcome::{Outcome, Revoking},
        resolve,
    },
    vault::session::Identity,
    view::Undecodable,
};

/// How soon a revocation that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long one request to the apiserver may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What became of everything that was issued for one object.
#[derive(Debug, Default)]
pub struct GivenUp {
    /// How much was revoked.
    pub revoked: usize,
    /// How many of these are certificates, of which nobody asks Vault whether they are revoked.
    pub certificates: usize,
    /// What was not.
    pub left: Vec<Left>,
    /// The tokens that it was issued with, by their accessors, and who may be able to revoke them.
    pub parents: BTreeMap<String, Identity>,
}

/// Something that was not revoked.
#[derive(Debug)]
pub struct Left {
    /// What it is, by its name in Vault.
    pub what: String,
    /// Accessor of the token with which it ends.
    pub parent: Option<String>,
    /// Why it was not; without any value.
    pub why: String,
}

impl Left {
    fn new(issued: &Issued, why: String) -> Self {
        Self {
            what: issued.to_string(),
            parent: issued.parent().map(str::to_owned),
            why,
        }
    }

    /// What was issued through another connection than `connection`: this Vault would say that there is no such lease, as
    /// if it had been revoked.
    fn elsewhere(issued: &Issued, connection: &str) -> Option<Self> {
        let through = issued.connection.as_deref();
        let other = through.filter(|through| *through != connection)?;
        let why = format!(
            "it was issued through connection {other}, and the object uses {connection} now"
        );
        Some(Self {
            parent: None,
            ..Self::new(issued, why)
        })
    }
}

impl GivenUp {
    /// Nobody knows what was issued.
    fn unread(why: String) -> Self {
        let left = Left {
            what: "what was issued for it".to_owned(),
            parent: None,
            why,
        };
        Self {
            left: vec![left],
            ..Self::default()
        }
    }
}

/// The token that `issued` ends with, unless somebody gave it to Lockstep: then it is not revoked. `given` says so of the
/// login as it is now, for records of before that was noted.
fn parent_to_end(issued: &Issued, given: bool) -> Option<&str> {
    issued.parent().filter(|_| !given && !issued.given)
}

impl Syncer {
    /// Revokes everything that was issued for the object called `key`, although it stays. `None` if nothing was.
    pub async fn give_up(&self, key: &ObjectKey) -> Option<GivenUp> {
        let view = self.world.vault_secrets.get(key)?;
        let object = Object::new(key, &view);
        let spec = match &view.spec {
            Ok(spec) => spec,
            Err(Undecodable { field, why }) => {
                let why =
                    format!("its record is not looked for, because {field} cannot be read: {why}");
                return view.finalizer.then(|| GivenUp::unread(why));
            }
        };
        let target = resolve::target_name(key, spec);
        let secret = self.observe(&object, target);
        let mut held = Holdings::default();
        self.learn(&object, &mut held, secret.as_deref(), self.default_interval);
        self.learn_former(&object, target, &mut held);
        let mut given = GivenUp::default();
        let unproven = held.sources.values().filter(|held| held.record.unproven);
        for Holding { record, .. } in unproven.filter(|held| held.record.issued.is_revocable()) {
            let why = "somebody changed the record in the Secret, so it is not believed";
            // Nor is what it says of its token.
            given.left.push(Left {
                parent: None,
                ..Left::new(&record.issued, why.to_owned())
            });
        }
        held.drop_all(self.moment());
        if held.superseded.is_empty() && given.left.is_empty() && !view.finalizer {
            return None;
        }
        let issued = held.superseded.iter().map(|ending| &ending.what.issued);
        let (login, identity) = match self.asks_as(&object, spec) {
            Ok((resolved, identity)) => (resolved.login, identity),
            Err(stop) => {
                let why = stop.to_string();
                let left = issued.map(|issued| Left::new(issued, why.clone()));
                given.left.extend(left);
                return Some(given);
            }
        };
        let connection = login.connection.to_string();
        for issued in issued {
            if let Some(left) = Left::elsewhere(issued, &connection) {
                given.left.push(left);
                continue;
            }
            match self.revoke(&identity, issued).await {
                Ok(()) => {
                    given.revoked += 1;
                    given.certificates += usize::from(issued.certificate().is_some());
                }
                Err(error) => given.left.push(Left::new(issued, error.to_string())),
            }
            let parent = parent_to_end(issued, login.is_given());
            given
                .parents
                .extend(parent.map(|parent| (parent.to_owned(), identity.clone())));
        }
        Some(given)
    }

    /// All that the Secret of the object called `key` names was given up: takes the record of it out, or the next operator
    /// would take what is revoked for good, as of a certificate it does not ask Vault.
    pub async fn forget_given_up(&self, key: &ObjectKey) -> Result<(), ApplyError> {
        let view = self.world.vault_secrets.get(key);
        let Some(Ok(spec)) = view.as_ref().map(|view| &view.spec) else {
            return Ok(());
        };
        let target = ObjectKey::new(&key.namespace, resolve::target_name(key, spec));
        let secret = self.world.secrets.get(&target);
        let managed = secret.as_ref().and_then(|secret| secret.managed.as_ref());
        let names_something = managed
            .is_some_and(|managed| managed.vault_secret == key.name && managed.holdings.is_some());
        match secret {
            Some(secret) if names_something => {
                apply::clear_record(&self.client, &self.metrics, &target, &secret.version()).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// As whom the object called `key` asks Vault; `None` while it may not.
    pub fn user(&self, key: &ObjectKey) -> Option<Identity> {
        let view = self.world.vault_secrets.get(key)?;
        let spec = view.spec.as_ref().ok()?;
        let (_, identity) = self.asks_as(&Object::new(key, &view), spec).ok()?;
        Some(identity)
    }

    /// Takes our finalizer off the object called `key`: nobody will be there to do so.
    pub async fn let_go(&self, key: &ObjectKey) -> Result<(), ApplyError> {
        match self.world.vault_secrets.get(key) {
            Some(view) if view.finalizer => self.set_finalizer(&Object::new(key, &view), &[]).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Puts our finalizer on the object, before the first lease is issued for it.
    pub(in crate::sync) async fn ensure_finalizer(
        &self,
        object: &Object<'_>,
    ) -> Result<(), ApplyError> {
        if object.view.finalizer {
            return Ok(());
        }
        self.set_finalizer(object, &[FINALIZER]).await
    }

    /// One pass over an object that is being deleted; says what it waits for, and when to look again.
    pub(in crate::sync) async fn finish(
        &self,
        object: &Object<'_>,
    ) -> (Option<Outcome>, Option<Instant>) {
        if !object.view.finalizer {
            return (None, None);
        }
        let clock = (self.clock)();
        let since = object.view.deleted.unwrap_or(clock);
        let waited: Duration = clock.duration_since(since).try_into().unwrap_or_default();
        let (left, missing_policy) = self.revoke_all(object).await;
        if !ending::may_go(left, waited) {
            let revoking = Outcome::Revoking(Revoking {
                until: since.checked_add(DELETION).unwrap_or(since),
                missing_policy,
            });
            return (Some(revoking), Some(Instant::now() + AGAIN));
        }
        if left > 0 {
            tracing::warn!(object = %object.key, left, "the VaultSecret is deleted although not all of its leases were revoked; they end with their TTL");
        }
        match self.set_finalizer(object, &[]).await {
            Ok(()) => {
                self.holdings.forget(object.key);
                self.sessions.forget(&object.key.to_string());
                (None, None)
            }
            Err(error) => {
                tracing::warn!(object = %object.key, %error, "the finalizer was not removed; it is tried again");
                (None, Some(Instant::now() + AGAIN))
            }
        }
    }

    /// Revokes everything that was issued for the object; says how much is left, and what Vault's policy lacks.
    async fn revoke_all(&self, object: &Object<'_>) -> (usize, Option<String>) {
        let held = self.holdings.of(object.key, &object.view.uid);
        let mut held = held.lock().await;
        let left = self.revoke_held(object, &mut held).await;
        (left, missing_policy(&held, |_| false))
    }

    async fn revoke_held(&self, object: &Object<'_>, held: &mut Holdings) -> usize {
        let Ok(spec) = &object.view.spec else {
            return 0;
        };
        let target = resolve::target_name(object.key, spec);
        let secret = self.observe(object, target);
        self.learn(object, held, secret.as_deref(), self.default_interval);
        // A Secret that stays stays usable as long as Vault lets it.
        if resolve::retains(spec) {
            self.sessions.spare(&object.key.to_string());
            held.drop_in_hand(self.moment());
            let key = ObjectKey::new(&object.key.namespace, target);
            match apply::live_records(&self.client, &key).await {
                Ok(live) => held.keep_named(&live),
                Err(_) => return held.open(),
            }
        } else {
            self.learn_former(object, target, held);
            held.drop_all(self.moment());
        }
        let identity = match self.asks_as(object, spec) {
            Ok((resolved, identity)) if held.open() > 0 => {
                let connection = &resolved.login.connection;
                self.holdings.serve(object.key, connection, &identity);
                identity
            }
            _ => return held.open(),
        };
        for ending in held.superseded.iter_mut().filter(|ending| !ending.done) {
            self.end_now(object, &identity, ending).await;
        }
        self.note_lives(object.key, &identity, held);
        held.open()
    }

    async fn end_now(&self, object: &Object<'_>, identity: &Identity, ending: &mut Ending) {
        let revoked = self
            .stop
            .run_until_cancelled(self.end(object, identity, ending));
        revoked.await.unwrap_or_default();
    }

    async fn set_finalizer(
        &self,
        object: &Object<'_>,
        finalizers: &[&str],
    ) -> Result<(), ApplyError> {
        let key = object.key;
        let api: Api<VaultSecret> = Api::namespaced(self.client.clone(), &key.namespace);
        let body = json!({
            "apiVersion": "lockstep.dev/v1alpha1",
            "kind": "VaultSecret",
            "metadata": {"name": key.name, "uid": object.view.uid, "finalizers": finalizers},
        });
        let params = PatchParams::apply(FINALIZER_MANAGER);
        let patched = timeout(
            LIMIT,
            api.patch_metadata(&key.name, &params, &Patch::Apply(&body)),
        )
        .await;
        let why = match patched {
            Ok(Ok(_)) => {
                self.metrics.apiserver_write("vaultsecrets", "ok");
                return Ok(());
            }
            // It is gone, or is another one by now.
            Ok(Err(kube::Error::Api(status)))
                if finalizers.is_empty() && matches!(status.code, 404 | 409) =>
            {
                return Ok(());
            }
            Ok(Err(kube::Error::Api(status))) => format!("{} ({})", status.reason, status.code),
            Ok(Err(_)) | Err(_) => "the apiserver cannot be reached".to_owned(),
        };
        self.metrics.apiserver_write("vaultsecrets", "error");
        Err(ApplyError::Failed {
            name: key.name.clone(),
            why: format!("set the finalizer of the VaultSecret: {why}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::What, *};

    fn lease(connection: Option<&str>, given: bool) -> Issued {
        Issued {
            namespace: None,
            connection: connection.map(str::to_owned),
            given,
            what: What::Lease {
                id: "database/creds/app/1".to_owned(),
                ttl: 3600,
                renewable: true,
                parent: Some("accessor".to_owned()),
            },
        }
    }

    #[test]
    fn a_token_that_somebody_gave_is_not_revoked_with_its_leases() {
        let rows = [
            ((false, false), Some("accessor")),
            ((false, true), None),
            ((true, true), None),
            // The login was edited since.
            ((true, false), None),
        ];
        for ((noted, now), expected) in rows {
            assert_eq!(parent_to_end(&lease(None, noted), now), expected);
        }
    }

    #[test]
    fn what_was_issued_through_another_connection_is_left() {
        let rows = [(None, false), (Some("new"), false), (Some("old"), true)];
        for (through, is_left) in rows {
            let left = Left::elsewhere(&lease(through, false), "new");
            assert_eq!(left.is_some(), is_left, "{through:?}");
            assert!(left.is_none_or(|left| left.parent.is_none()));
        }
    }

    #[test]
    fn an_object_that_cannot_be_read_leaves_something() {
        let given = GivenUp::unread("spec.sources cannot be read".to_owned());
        assert_eq!((given.left.len(), given.parents.len()), (1, 0));
    }
}
