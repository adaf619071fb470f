//! What the metrics say of leases and certificates, and of a Vault that cannot be read.

use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::eventually;
use serde_json::json;

use crate::support::{LONG, Pki, Role, SOON, Stage, Team};

/// Waits until each of these samples is what is said of it; `None` is for one that is not there.
async fn counted(stage: &Stage, wanted: &[(&str, Option<f64>)]) {
    eventually(SOON, &format!("{wanted:?}"), async || {
        let found = stage.samples().await;
        let wrong = wanted
            .iter()
            .find(|(name, value)| found.get(*name).copied() != *value);
        wrong.map_or(Ok(()), |(name, _)| Err(format!("{name}: {found:#?}")))
    })
    .await
    .unwrap();
}

fn expiry(kind: &str) -> String {
    format!("credential_expiry_seconds{{kind={kind}}}")
}

#[tokio::test]
async fn metrics_say_what_lives_for_how_long_and_what_became_of_it() {
    let stage = Stage::own().await;
    let team = stage.team("counted").await;
    let (role, pki) = (Role::new(&team, "app", LONG).await, Pki::new(&team).await);
    let revoke = pki.source(json!({"ttl": "2h", "revoke": true}));
    team.issue("app", &[role.source(), revoke], json!({})).await;
    team.ready("app").await;
    counted(
        &stage,
        &[
            ("credentials{kind=lease,state=in_use}", Some(1.0)),
            ("credentials{kind=certificate,state=in_use}", Some(1.0)),
            ("credentials{kind=lease,state=unwritten}", Some(0.0)),
            ("credentials{kind=lease,state=over}", Some(0.0)),
            ("credentials_issued_total{kind=lease,why=First}", Some(1.0)),
            ("staleness_seconds", Some(0.0)),
        ],
    )
    .await;
    for (kind, full) in [("lease", 3600.0), ("certificate", 7200.0)] {
        let found = stage.samples().await[&expiry(kind)];
        assert!(found <= full && found > full - 120.0, "{kind}: {found}");
    }

    // No workload is seen, so what was replaced is there for two minutes.
    team.annotate("app", "lockstep.dev/rotate", "now").await;
    counted(
        &stage,
        &[
            ("credentials{kind=lease,state=in_use}", Some(1.0)),
            ("credentials{kind=lease,state=superseded}", Some(1.0)),
            ("credentials{kind=certificate,state=superseded}", Some(1.0)),
            (
                "credentials_issued_total{kind=lease,why=Requested}",
                Some(1.0),
            ),
            ("credentials_revoked_total{kind=lease}", None),
        ],
    )
    .await;

    for lease in role.leases().await {
        let body = json!({"lease_id": lease, "sync": true});
        stage
            .vault()
            .write("sys/leases/revoke", &body)
            .await
            .unwrap();
    }
    counted(
        &stage,
        &[
            ("credentials_issued_total{kind=lease,why=Gone}", Some(1.0)),
            ("credentials_lost_total{kind=lease}", Some(1.0)),
        ],
    )
    .await;

    a_sealed_vault_shows(&stage, &team).await;
    what_is_deleted_shows_no_more(&stage, &team).await;
}

async fn a_sealed_vault_shows(stage: &Stage, team: &Team<'_>) {
    team.put("kv", &json!({"password": "one"})).await;
    team.vault_secret("kv", json!({})).await;
    team.ready("kv").await;
    stage.vault().seal().await.unwrap();
    eventually(SOON, "it is stale", async || {
        let found = stage.samples().await["staleness_seconds"];
        (found > 1.0).then_some(()).ok_or(found)
    })
    .await
    .unwrap();
    stage.vault().unseal().await.unwrap();
    counted(stage, &[("staleness_seconds", Some(0.0))]).await;
}

async fn what_is_deleted_shows_no_more(stage: &Stage, team: &Team<'_>) {
    team.delete::<VaultSecret>("app").await;
    let mut gone = vec![("credentials_revoked_total{kind=certificate}", Some(2.0))];
    for kind in ["lease", "certificate"] {
        gone.extend(["in_use", "superseded", "over"].map(|state| {
            let name = format!("credentials{{kind={kind},state={state}}}");
            (&*name.leak(), Some(0.0))
        }));
        gone.push((expiry(kind).leak(), None));
    }
    counted(stage, &gone).await;
}
