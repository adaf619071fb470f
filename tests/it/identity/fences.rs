//! A login with `allowedPaths` is used for those and for no others, whatever Vault would allow.

use serde_json::{Value, json};

use super::{by, login, tenant};
use crate::support::{Stage, Team};

/// The part of a spec with one KV source at `path`.
fn source(path: &str, more: &Value) -> Value {
    let mut kv = json!({"mount": "secret", "path": path});
    kv.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"sources": [{"name": "main", "kv": kv}]})
}

/// Applies a `VaultSecret` with the login called `auth`, and the source.
async fn secret(team: &Team<'_>, name: &str, auth: Value, source: Value) {
    let mut spec = auth;
    spec.as_object_mut()
        .unwrap()
        .extend(source.as_object().unwrap().clone());
    team.vault_secret(name, spec).await;
}

#[tokio::test]
async fn a_login_is_not_used_for_a_path_outside_its_fence() {
    let stage = Stage::shared().await;
    let team = stage.team("fence").await;
    for name in ["open/app", "closed/app"] {
        team.put(name, &json!({"k": "v"})).await;
    }
    let fenced = |paths: Value| {
        let mut spec = tenant();
        spec["allowedPaths"] = paths;
        spec
    };
    let open = fenced(json!(["secret/data/{{namespace}}/open/*"]));
    // The default of the namespace, and one of the cluster.
    login(&team, "VaultAuth", "default", open.clone()).await;
    let cluster = format!("{}-fence", team.namespace);
    let mut wide = open.clone();
    wide["allowedNamespaces"] = json!({"names": ["*"]});
    login(&team, "ClusterVaultAuth", &cluster, wide).await;
    let mark = stage.vault_audit_mark().unwrap();
    let logins = [
        ("default", json!({})),
        ("cluster", by("ClusterVaultAuth", &cluster)),
    ];
    for (name, auth) in &logins {
        let outside = source(&team.path("closed/app"), &json!({}));
        secret(&team, &format!("{name}-outside"), auth.clone(), outside).await;
        let trick = source(
            &format!("data/{}", team.path("open/../closed/app")).replace("/../", "/%2e%2e/"),
            &json!({}),
        );
        secret(&team, &format!("{name}-trick"), auth.clone(), trick).await;
        let inside = source(&team.path("open/app"), &json!({}));
        secret(&team, &format!("{name}-inside"), auth.clone(), inside).await;
    }
    for (name, _) in &logins {
        team.secret_with(&format!("{name}-inside"), "k", "v").await;
        for what in ["outside", "trick"] {
            let words = ["spec.sources[main]", "spec.allowedPaths", &team.namespace];
            team.stalled(&format!("{name}-{what}"), "PathNotAllowed", &words)
                .await;
        }
    }
    team.polled_outside(&team.path("open/app")).await;
    let asked = team.reads_since(mark);
    assert!(
        asked.iter().all(|read| !read.path.contains("closed")),
        "{asked:?}"
    );

    // It heals when the owner of the login says so, and is closed again as soon.
    let both = fenced(json!(["secret/data/{{namespace}}/*"]));
    login(&team, "VaultAuth", "default", both).await;
    team.secret_with("default-outside", "k", "v").await;
    team.healed("default-outside").await;
    login(&team, "VaultAuth", "default", open).await;
    team.stalled("default-outside", "PathNotAllowed", &[]).await;
    team.secret_with("default-outside", "k", "v").await;
}

impl Team<'_> {
    /// Returns after another version of the secret at `path` has reached the Secrets that hold it: by then every
    /// source has had its turn.
    async fn polled_outside(&self, path: &str) {
        let data = json!({"k": "polled"});
        let vault = self.stage.vault();
        vault.kv_put("secret", path, &data).await.unwrap();
        self.secret_with("default-inside", "k", "polled").await;
        self.secret_with("cluster-inside", "k", "polled").await;
    }
}
