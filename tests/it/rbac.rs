//! What the chart grants is what the operator needs: nothing is missing, and nothing is left over.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, StatefulSet},
    core::v1::{Pod, Secret},
    rbac::v1::{ClusterRole, PolicyRule, Role},
};
use kube::Api;
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::{
    ApiRequest, ArgoRollouts, Bed, OPERATOR_NAMESPACE, OperatorOptions, eventually, parts::Tool,
};
use serde_json::json;

use crate::support::{LONG, Role as DatabaseRole, SOON, Stage, Team, env_from, options, workload};

const NAME: &str = "lockstep";

/// One permission: group, resource with its subresource, verb.
type Permission = (String, String, String);

#[tokio::test]
async fn the_chart_grants_exactly_what_a_whole_life_needs() {
    let mut stage = Stage::own_without_operator().await;
    stage
        .apply_yaml(include_str!("../../config/namespace.yaml"))
        .await
        .unwrap();
    stage.apply_yaml(&rendered_chart().await).await.unwrap();
    let rollouts = tokio::task::spawn_blocking(ArgoRollouts::definition).await;
    stage
        .install_crds(&rollouts.unwrap().unwrap())
        .await
        .unwrap();
    let mark = stage.audit_mark().await.unwrap();
    let under_rbac = OperatorOptions {
        kubeconfig: Some(
            stage
                .kubeconfig_for(OPERATOR_NAMESPACE, NAME)
                .await
                .unwrap(),
        ),
        ..options(vec!["--leader-election=true".to_owned()])
    };
    let operator = Bed::operator(&stage, &under_rbac).unwrap();
    operator.wait_ready(SOON).await.unwrap();
    stage.operator = Some(operator);
    let team = stage.team("rbac").await;
    synced_repaired_and_rolled_out(&team).await;
    merged_and_released(&team).await;
    logs_in_with_objects_of_the_namespace(&team).await;
    looks_for_an_identity_of_a_cloud(&team).await;
    issued_and_revoked(&team).await;
    refused_by_a_quota(&team).await;
    // A watch is in the audit log when it has ended.
    stage.operator().terminate().unwrap();

    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{NAME}");
    let requests = stage
        .audit_since(mark, |request| request.user == user)
        .await
        .unwrap();
    let refused: Vec<&ApiRequest> = requests
        .iter()
        .filter(|request| request.code == 403)
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let needed: BTreeSet<Permission> = requests.iter().flat_map(permissions).collect();
    let granted = granted(&stage).await;
    let surplus: Vec<&Permission> = granted.difference(&needed).collect();
    assert!(
        surplus.is_empty(),
        "granted and not used: {surplus:#?}\nused: {needed:#?}"
    );
    assert!(granted.len() > 20, "{granted:#?}");
}

#[tokio::test]
async fn the_deployment_runs_where_pod_security_is_restricted() {
    let stage = Stage::own_without_operator().await;
    stage
        .apply_yaml(include_str!("../../config/namespace.yaml"))
        .await
        .unwrap();
    stage.apply_yaml(&rendered_chart().await).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(stage.client().await.unwrap(), OPERATOR_NAMESPACE);
    let ours = kube::api::ListParams::default().labels("app.kubernetes.io/name=lockstep");
    let admitted = async || pods.list(&ours).await.unwrap().items.into_iter().next();
    eventually(SOON, "a pod of the operator", admitted)
        .await
        .unwrap();
    // It is no wonder there is one unless others are refused.
    let root = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root", "namespace": OPERATOR_NAMESPACE},
        "spec": {"containers": [{"name": "root", "image": "root"}]},
    });
    let error = stage.apply_yaml(&root.to_string()).await.unwrap_err();
    assert!(error.to_string().contains("PodSecurity"), "{error:?}");
}

#[tokio::test]
async fn the_secret_of_tokens_is_granted_only_where_tokens_are_stored() {
    let names = |chart: String| chart.matches("lockstep-sessions").count();
    assert_eq!(names(rendered_chart().await), 0);
    let storing = rendered_chart_with(&["--set", "sessionStore=secret"]).await;
    assert!(storing.contains("- --session-store=secret"), "{storing}");
    let rule = "resourceNames: [lockstep-sessions]\n    verbs: [get, patch]";
    assert!(storing.contains(rule), "{storing}");
    assert_eq!(names(storing), 1);
}

/// The hook is started with the flags of the operator, so that it may reach the same.
#[tokio::test]
async fn uninstalling_revokes_only_where_that_is_wanted() {
    let hooks = |chart: &str| chart.matches("helm.sh/hook: pre-delete").count();
    assert_eq!(hooks(&rendered_chart().await), 0);
    let chart = rendered_chart_with(&["--set", "revokeOnUninstall=true,workers=7"]).await;
    assert_eq!(hooks(&chart), 1);
    let flags = |command: &str| {
        let (_, after) = chart.split_once(&format!("- {command}\n")).unwrap();
        let flags = after.lines().map(str::trim);
        let flags = flags.take_while(|line| line.starts_with("- "));
        flags.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(flags("run"), flags("uninstall"));
    assert!(flags("uninstall").contains(&"- --workers=7".to_owned()));
}

/// The chart as `helm template` renders it with its defaults.
pub async fn rendered_chart() -> String {
    rendered_chart_with(&[]).await
}

async fn rendered_chart_with(arguments: &[&str]) -> String {
    let helm = tokio::task::spawn_blocking(|| Tool::Helm.locate().unwrap())
        .await
        .unwrap();
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/lockstep");
    let output = tokio::process::Command::new(helm)
        .args(["template", NAME, chart, "--namespace", OPERATOR_NAMESPACE])
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What the chart granted, read back from the apiserver.
async fn granted(stage: &Stage) -> BTreeSet<Permission> {
    let client = stage.client().await.unwrap();
    let cluster: Api<ClusterRole> = Api::all(client.clone());
    let namespaced: Api<Role> = Api::namespaced(client, OPERATOR_NAMESPACE);
    let rules = [
        cluster.get(NAME).await.unwrap().rules,
        namespaced.get(NAME).await.unwrap().rules,
    ];
    rules
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(each)
        .collect()
}

fn each(rule: PolicyRule) -> Vec<Permission> {
    let mut all = Vec::new();
    for group in rule.api_groups.unwrap_or_default() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                all.push((group.clone(), resource.clone(), verb.clone()));
            }
        }
    }
    all
}

/// What a request needed. An apply that creates an object needs the right to create as well.
fn permissions(request: &ApiRequest) -> Vec<Permission> {
    let resource = if request.subresource.is_empty() {
        request.resource.clone()
    } else {
        format!("{}/{}", request.resource, request.subresource)
    };
    let with = |verb: &str| (request.group.clone(), resource.clone(), verb.to_owned());
    let mut needed = vec![with(&request.verb)];
    if request.verb == "patch" && request.code == 201 {
        needed.push(with("create"));
    }
    needed
}

/// Created, changed, put right, refused; with each kind of workload.
async fn issued_and_revoked(team: &Team<'_>) {
    let role = DatabaseRole::new(team, "app", LONG).await;
    team.issue("issued", &[role.source()], json!({})).await;
    team.ready("issued").await;
    role.one_lease().await;
    team.delete::<VaultSecret>("issued").await;
    eventually(SOON, "the object is gone", async || {
        (!team.exists("issued").await).then_some(())
    })
    .await
    .unwrap();
}

/// Why the pods of a StatefulSet are refused stands in events.
async fn refused_by_a_quota(team: &Team<'_>) {
    team.put("full", &json!({"password": "one"})).await;
    let rollout = json!({"rollout": {"settle": "1s", "verifyTimeout": "1s"}});
    team.vault_secret("full", rollout).await;
    team.apply(&workload("StatefulSet", "full", &env_from(&["full"])))
        .await;
    team.in_step("full", ("StatefulSet", "full"), None).await;
    team.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"},
        "spec": {"hard": {"pods": "0"}},
    }))
    .await;
    team.put("full", &json!({"password": "two"})).await;
    let refused = async || {
        let told = team
            .condition("full", "RolledOut")
            .await
            .unwrap_or_default();
        if told.contains("exceeded quota: full") {
            Ok(())
        } else {
            Err(told)
        }
    };
    eventually(SOON, "the refusal is told", refused)
        .await
        .unwrap();
}

async fn synced_repaired_and_rolled_out(team: &Team<'_>) {
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", json!({})).await;
    team.secret_with("app", "password", "one").await;
    team.deployment("app", 1, &["app"]).await;
    for (api, kind) in [
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        // Without its controller it has no pods, so what is written is that it is in step.
        ("argoproj.io/v1alpha1", "Rollout"),
    ] {
        team.apply(&json!({
            "apiVersion": api, "kind": kind, "metadata": {"name": "app"},
            "spec": {
                "selector": {"matchLabels": {"set": kind}},
                "template": {
                    "metadata": {"labels": {"set": kind}},
                    "spec": {"containers": [{
                        "name": "app", "image": "app", "envFrom": [{"secretRef": {"name": "app"}}],
                    }]},
                },
            },
        }))
        .await;
    }
    team.settled("app").await;
    team.condition_is("app", "RolledOut", "True Verified").await;
    team.put("app", &json!({"password": "two"})).await;
    team.secret_with("app", "password", "two").await;
    eventually(SOON, "three stamps", async || {
        let set = team.api::<StatefulSet>().get("app").await.unwrap();
        let daemons = team.api::<DaemonSet>().get("app").await.unwrap();
        let generations = [set.metadata.generation, daemons.metadata.generation];
        team.stamp("app").await.is_some() && generations == [Some(2), Some(2)]
    })
    .await
    .unwrap();
    team.condition_is("app", "RolledOut", "True Verified").await;
    // Twice, so that the event is counted up.
    for _ in 0..2 {
        team.patch::<Secret>("app", json!({"data": {"password": null}}))
            .await;
        team.secret_with("app", "password", "two").await;
    }
    team.vault_secret(
        "missing",
        json!({"sources": [{"name": "a", "kv": {"mount": "secret", "path": "other/x"}}]}),
    )
    .await;
    team.condition_is("missing", "SourcesReachable", "False Denied")
        .await;
    eventually(SOON, "an event that was counted up", async || {
        let events = team
            .api::<k8s_openapi::api::events::v1::Event>()
            .list(&kube::api::ListParams::default())
            .await
            .unwrap();
        events.items.iter().any(|event| event.series.is_some())
    })
    .await
    .unwrap();
}

/// Keys that were added to a Secret of somebody else go with the `VaultSecret`, and no other, not even those that
/// nobody owns because they were applied as `stringData`.
async fn merged_and_released(team: &Team<'_>) {
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}, "stringData": {"kept": "k"},
    }))
    .await;
    let target = json!({"target": {"name": "theirs", "creationPolicy": "Merge", "deletionPolicy": "Delete"}});
    team.put("merge", &json!({"added": "a"})).await;
    team.vault_secret("merge", target).await;
    team.secret_with("theirs", "added", "a").await;
    team.ready("merge").await;
    team.delete::<VaultSecret>("merge").await;
    eventually(SOON, "the added key is gone", async || {
        let secret = team.secret("theirs").await.unwrap();
        let keys: Vec<String> = secret.data.unwrap_or_default().into_keys().collect();
        if keys == ["kept"] {
            Ok(())
        } else {
            Err(format!("{keys:?} {:#?}", secret.metadata.managed_fields))
        }
    })
    .await
    .unwrap();
}

/// The annotation is missing, so no cloud is asked.
async fn looks_for_an_identity_of_a_cloud(team: &Team<'_>) {
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth", "metadata": {"name": "aws"},
        "spec": {
            "connectionRef": {"kind": "ClusterVaultConnection", "name": "main"},
            "aws": {"role": "app", "serviceAccountRef": {"name": "default"}},
        },
    }))
    .await;
    let spec = json!({"authRef": {"kind": "VaultAuth", "name": "aws"}});
    team.vault_secret("aws", spec).await;
    let told = ["has no annotation eks.amazonaws.com/role-arn"];
    team.unreachable("aws", "CredentialUnavailable", &told)
        .await;
}

/// A token in a Secret, and certificate authorities in a Secret and in a `ConfigMap`.
async fn logs_in_with_objects_of_the_namespace(team: &Team<'_>) {
    team.allow_reads().await;
    let vault = team.stage.vault();
    let token = vault.create_token(&[&team.namespace], "1h").await.unwrap();
    let pem = team.stage.vault_ca_pem();
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "stringData": {"token": token, "ca.crt": pem},
    }))
    .await;
    team.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": pem},
    }))
    .await;
    let address = team.stage.vault_tls_address();
    for (name, ca) in [
        (
            "by-secret",
            json!({"secret": {"name": "login", "key": "ca.crt"}}),
        ),
        (
            "by-map",
            json!({"configMap": {"name": "ca", "key": "ca.crt"}}),
        ),
    ] {
        team.apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultConnection", "metadata": {"name": name},
            "spec": {"address": address, "tls": {"ca": ca}},
        }))
        .await;
        team.apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth", "metadata": {"name": name},
            "spec": {
                "connectionRef": {"kind": "VaultConnection", "name": name},
                "token": {"secretRef": {"name": "login", "key": "token"}},
            },
        }))
        .await;
        team.put(name, &json!({"a": "b"})).await;
        team.vault_secret(
            name,
            json!({"authRef": {"kind": "VaultAuth", "name": name}}),
        )
        .await;
        team.ready(name).await;
    }
}
