//! Effects: apiserver, Vault — `lockstep uninstall`. Revokes everything that was issued, and ends.
//!
//! An operator that runs would have it issued anew. So this process takes its Lease first, which ends it, and does not
//! give it back: whoever is still there begins again when it has run out.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures::StreamExt;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Operator, RunError, client};
use crate::{
    cli::settings::Settings,
    cloud::http::Clouds,
    election::{Leadership, Params},
    names::ObjectKey,
    sync::holding::finish::{GivenUp, Left},
    telemetry::metrics::Metrics,
    vault::error::{VaultError, VaultErrorKind},
};

/// How long a Lease must stand still to be taken from whoever holds it: no time, as far as there is such a Lease.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What a policy lacks that does not let tokens be revoked.
const ADVICE: &str = r#"; a policy that allows it has the line path "auth/token/revoke-accessor" { capabilities = ["update"] }"#;
/// What to do about a Secret whose record cannot be taken away, because something it names is left.
const STAYS: &str = "a certificate of it is revoked, which an operator that stays does not notice: uninstall again, or give lockstep.dev/rotate a new value";
/// Objects at once.
const AT_A_TIME: usize = 16;

/// What was revoked, and what was not.
#[derive(Debug, Default)]
pub struct Uninstalled {
    /// For people, without any value: a line for each object and for each token that is left.
    pub lines: Vec<String>,
    /// How many leases and certificates are left.
    pub left: usize,
}

/// Revokes everything that was issued for any object, and the tokens it was issued with.
pub async fn uninstall(settings: Settings) -> Result<Uninstalled, RunError> {
    let metrics = Arc::new(Metrics::new());
    let client = client().await?;
    let clouds = Clouds::new(settings.cloud_endpoints.clone()).map_err(RunError::BuildClouds)?;
    let mut tasks = JoinSet::new();
    let operator = Operator::new(
        (client, clouds),
        settings,
        metrics,
        CancellationToken::new(),
    );
    let usual = Params::new(&operator.settings.namespace, &operator.settings.identity);
    let patience = usual.renew_deadline + usual.retry;
    let params = Params {
        lease: AT_ONCE,
        retry: AT_ONCE,
        ..usual
    };
    let (leadership, mut election) = operator.campaign(CancellationToken::new(), params);
    let world = &operator.world;
    let work = async {
        if took_over(leadership).await {
            // By then it has ended, even if it cannot reach the apiserver.
            sleep(patience).await;
        }
        world.watch(
            &operator.client,
            &operator.wiring,
            &mut tasks,
            &operator.stop,
        );
        world.wait_until_synced().await;
        operator.give_up(&mut tasks).await
    };
    let result = tokio::select! {
        result = work => result,
        ended = &mut election => Err(super::lost(ended).err().unwrap_or(RunError::TaskEnded)),
    };
    operator.stop.cancel();
    election.abort();
    tasks.shutdown().await;
    result
}

/// Waits until this process leads; says whether another one did.
async fn took_over(mut leadership: watch::Receiver<Leadership>) -> bool {
    let mut another = false;
    loop {
        match &*leadership.borrow_and_update() {
            Leadership::Leader { .. } => return another,
            Leadership::Follower { leader } => another |= leader.is_some(),
        }
        // The elector keeps the sender until it ends, which is awaited beside this.
        if leadership.changed().await.is_err() {
            return another;
        }
    }
}

impl Operator {
    async fn give_up(&self, tasks: &mut JoinSet<()>) -> Result<Uninstalled, RunError> {
        let Some(syncer) = self
            .syncer(&Arc::new(AtomicBool::new(false)), tasks)
            .await?
        else {
            return Ok(Uninstalled::default());
        };
        let all = self.world.vault_secrets.all();
        // Those that hold nothing may have a token that is stored.
        let users = all.iter().filter_map(|(key, _)| syncer.user(key)).collect();
        let given = futures::stream::iter(all).map(|(key, _)| {
            let syncer = &syncer;
            async move { Some((syncer.give_up(&key).await?, key)) }
        });
        let given = given.buffer_unordered(AT_A_TIME);
        let mut given: Vec<(GivenUp, ObjectKey)> =
            given.filter_map(std::future::ready).collect().await;
        given.sort_by(|(_, a), (_, b)| a.cmp(b));
        let mut parents = BTreeMap::new();
        for (object, _) in &mut given {
            parents.append(&mut object.parents);
        }
        let tokens = syncer.sessions.give_up(parents, users).await;
        let mut told = Uninstalled::default();
        for (object, key) in given {
            let Told { revoked, left } = told.tell(&key, object, &tokens);
            if left > 0 {
                continue;
            }
            if revoked > 0
                && let Err(error) = syncer.forget_given_up(&key).await
            {
                told.lines
                    .push(format!("{key}: the Secret still names it: {error}"));
            }
            if let Err(error) = syncer.let_go(&key).await {
                told.lines
                    .push(format!("{key}: the finalizer is still there: {error}"));
            }
        }
        told.tell_tokens(&tokens);
        Ok(told)
    }
}

type Tokens = BTreeMap<String, Result<(), VaultError>>;

/// What became of what was issued for one object.
struct Told {
    revoked: usize,
    left: usize,
}

impl Uninstalled {
    fn tell(&mut self, key: &ObjectKey, object: GivenUp, tokens: &Tokens) -> Told {
        let GivenUp {
            revoked,
            certificates,
            left,
            ..
        } = object;
        // What is issued with a token ends with it.
        let ended = |left: &Left| {
            let token = left.parent.as_ref().and_then(|parent| tokens.get(parent));
            matches!(token, Some(Ok(())))
        };
        let (ended, left): (Vec<_>, Vec<_>) = left.into_iter().partition(ended);
        let revoked = revoked + ended.len();
        let count = left.len();
        self.left += count;
        self.lines
            .push(format!("{key}: revoked {revoked}, left {count}"));
        for Left { what, why, .. } in left {
            self.lines.push(format!("{key}: {what} is left: {why}"));
        }
        if count > 0 && certificates > 0 {
            self.lines.push(format!("{key}: {STAYS}"));
        }
        Told {
            revoked,
            left: count,
        }
    }

    fn tell_tokens(&mut self, tokens: &Tokens) {
        for (accessor, outcome) in tokens {
            if let Err(error) = outcome {
                let is_denied = error.kind == VaultErrorKind::Denied;
                let advice = if is_denied { ADVICE } else { "" };
                self.lines.push(format!(
                    "the token with accessor {accessor} is left and ends with its TTL: {error}{advice}"
                ));
            }
        }
    }
}
