//! Logins whose password Vault changes in place, tried against the database they are for.

use std::time::{Duration, Instant};

use lockstep_testbed::{eventually, postgres::Postgres};
use serde_json::{Value, json};

use crate::support::{SOON, Stage, Team, text_of};

/// The shortest allowed.
pub const CHECK: Duration = Duration::from_secs(5);

/// Vault looks for rotations that are due this often.
pub const TICK: Duration = Duration::from_secs(5);

/// A tenant with a database engine of its own, mounted under the name of its namespace, and `app`, a login of
/// PostgreSQL and a static role in Vault.
async fn team<'a>(stage: &'a Stage, prefix: &str, period: &str) -> (Team<'a>, &'a Postgres) {
    let team = stage.team(prefix).await;
    let (mount, vault) = (&team.namespace, stage.vault());
    team.has_policy(&format!(
        r#"
path "{mount}/*" {{ capabilities = ["read"] }}
path "secret/data/{mount}/*" {{ capabilities = ["read"] }}
"#
    ))
    .await;
    let postgres = stage.postgres().await.unwrap();
    let user = format!("app-{mount}");
    let create = format!("CREATE ROLE \"{user}\" LOGIN PASSWORD 'before'");
    postgres.query(&create).await.unwrap();
    vault.enable_engine(mount, "database").await.unwrap();
    let (username, password) = postgres.credentials();
    let config = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
        "connection_url": postgres.vault_url(), "username": username, "password": password,
    });
    vault
        .write(&format!("{mount}/config/main"), &config)
        .await
        .unwrap();
    let role = json!({"db_name": "main", "username": user, "rotation_period": period});
    vault
        .write(&format!("{mount}/static-roles/app"), &role)
        .await
        .unwrap();
    (team, postgres)
}

/// The `VaultSecret` `app` with the static role `app`, read at least this often.
pub async fn static_role(team: &Team<'_>, check: &str) {
    let role = json!({"mount": team.namespace, "role": "app", "checkInterval": check});
    let sources = json!([{"name": "db", "staticRole": role}]);
    let spec = json!({"sources": sources, "refreshInterval": "1h"});
    team.vault_secret("app", spec).await;
}

/// User name and password in the Secret.
pub async fn login(team: &Team<'_>) -> Result<(String, String), &'static str> {
    let secret = team.secret("app").await.ok_or("no Secret")?;
    let text = |key| text_of(&secret, key).ok_or("a key is missing");
    Ok((text("username")?, text("password")?))
}

/// Waits until the password is another one; returns it and how long that took.
pub async fn changed(team: &Team<'_>, before: &str) -> (String, Duration) {
    let start = Instant::now();
    let password = eventually(SOON, "another password", async || {
        let (_, password) = login(team).await?;
        if password == before {
            Err("it is the same")
        } else {
            Ok(password)
        }
    })
    .await
    .unwrap();
    (password, start.elapsed())
}

/// When Vault last changed the password, as the status says.
pub async fn last_rotation(team: &Team<'_>) -> String {
    let status = serde_json::to_value(&team.status("app").await.sources).unwrap();
    assert_eq!(status[0]["kind"], "StaticRole");
    let told = status[0]["lastRotation"].as_str();
    told.unwrap().to_owned()
}

/// Waits until the status, which is written after the Secret, tells a later rotation than `before`.
pub async fn told_since(team: &Team<'_>, before: &str) {
    eventually(SOON, "the later rotation in the status", async || {
        let told = last_rotation(team).await;
        if *told > *before { Ok(()) } else { Err(told) }
    })
    .await
    .unwrap();
}

/// How often the role was read.
fn reads(team: &Team<'_>, mark: lockstep_testbed::AuditMark) -> usize {
    team.asked(mark, "/static-creds/app").len()
}

#[tokio::test]
async fn a_rotation_by_hand_shows_within_one_check_and_nothing_is_written_meanwhile() {
    let stage = Stage::shared().await;
    let (team, postgres) = team(stage, "byhand", "24h").await;
    static_role(&team, "5s").await;
    team.ready("app").await;
    let (user, first) = login(&team).await.unwrap();
    let name = postgres
        .query_as(&user, &first, "select current_user")
        .await;
    assert_eq!(name.unwrap(), [[user.clone()]]);
    assert_eq!(team.keys_of("app").await, "password username");
    let before = last_rotation(&team).await;

    let (mark, vault_mark) = (
        stage.audit_mark().await.unwrap(),
        stage.vault_audit_mark().unwrap(),
    );
    eventually(SOON, "three more checks", async || {
        let count = reads(&team, vault_mark);
        if count >= 3 { Ok(()) } else { Err(count) }
    })
    .await
    .unwrap();
    assert_eq!(team.writes(mark).await, [], "the time to live is no news");

    let rotate = format!("{}/rotate-role/app", team.namespace);
    stage.vault().write(&rotate, &json!({})).await.unwrap();
    let (second, took) = changed(&team, &first).await;
    assert!(took < CHECK + Duration::from_secs(2), "{took:?}");
    postgres.query_as(&user, &second, "select 1").await.unwrap();
    assert!(postgres.query_as(&user, &first, "select 1").await.is_err());
    told_since(&team, &before).await;
}

#[tokio::test]
async fn a_rotation_of_vaults_own_is_followed_when_it_is_due() {
    let stage = Stage::shared().await;
    let period = Duration::from_secs(12);
    let (team, postgres) = team(stage, "ownclock", "12s").await;
    let mark = stage.vault_audit_mark().unwrap();
    static_role(&team, "1h").await;
    team.ready("app").await;
    let (user, first) = login(&team).await.unwrap();
    let (second, _) = changed(&team, &first).await;
    postgres.query_as(&user, &second, "select 1").await.unwrap();
    let (third, took) = changed(&team, &second).await;
    let latest = period + TICK + Duration::from_secs(5);
    assert!(took < latest, "{took:?}");
    postgres.query_as(&user, &third, "select 1").await.unwrap();
    let reads = reads(&team, mark);
    // One at the start, and for each change up to four while Vault has not got round to it.
    assert!(reads <= 11, "{reads}");
}

#[tokio::test]
async fn what_is_no_static_role_is_refused_and_the_last_good_secret_stays() {
    let stage = Stage::shared().await;
    let (team, _) = team(stage, "norole", "24h").await;
    static_role(&team, "5s").await;
    team.ready("app").await;
    let kept = team.secret_to_the_letter("app").await["data"].clone();
    let mount = team.namespace.as_str();
    let role = |mount: &str, role: &str| -> Value { json!({"mount": mount, "role": role}) };
    team.reads_from("app", "staticRole", role(mount, "nobody"))
        .await;
    team.unreachable(
        "app",
        "NotFound",
        &["static-creds/nobody", "unknown role: nobody"],
    )
    .await;
    assert_eq!(team.secret_to_the_letter("app").await["data"], kept);
    team.reads_from("app", "staticRole", role("secret", "app"))
        .await;
    let words = ["mounts/secret", "'kv'", "not 'database' or 'ldap'"];
    team.unreachable("app", "Invalid", &words).await;
    let mut ldap = role(mount, "app");
    ldap["engine"] = json!("Ldap");
    team.reads_from("app", "staticRole", ldap).await;
    let words = [mount, "'database'", "correct engine"];
    team.condition_is("app", "SourcesReachable", "False").await;
    let told = eventually(SOON, "the engine is named", async || {
        let told = team
            .condition("app", "SourcesReachable")
            .await
            .unwrap_or_default();
        if told.contains("correct engine") {
            Ok(told)
        } else {
            Err(told)
        }
    })
    .await
    .unwrap();
    assert!(words.iter().all(|word| told.contains(word)), "{told}");
    assert_eq!(team.secret_to_the_letter("app").await["data"], kept);
    static_role(&team, "5s").await;
    team.healed("app").await;
}
