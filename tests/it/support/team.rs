//! One tenant of a stage, with the few things tests do over and over.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use lockstep::{api::vault_secret::VaultSecret, names::SECRETS_HASH};
use lockstep_testbed::eventually;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{SOON, Stage, env_from};

/// A namespace that reads `secret/<namespace>/*` in Vault through its ServiceAccount `default`.
pub struct Team<'a> {
    /// The stage it is on.
    pub stage: &'a Stage,
    /// The namespace.
    pub namespace: String,
    /// Talks to the apiserver as admin.
    pub client: Client,
}

/// What Vault allows a tenant: the paths that begin with the name of its namespace.
const POLICY: &str = r#"
path "secret/data/{{identity.entity.aliases.ACCESSOR.metadata.service_account_namespace}}/*" { capabilities = ["read"] }
path "kv1/{{identity.entity.aliases.ACCESSOR.metadata.service_account_namespace}}/*" { capabilities = ["read"] }
path "database/creds/{{identity.entity.aliases.ACCESSOR.metadata.service_account_namespace}}-*" { capabilities = ["read"] }
path "pki-{{identity.entity.aliases.ACCESSOR.metadata.service_account_namespace}}/*" { capabilities = ["update"] }
path "signing-{{identity.entity.aliases.ACCESSOR.metadata.service_account_namespace}}/sign/*" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "auth/token/renew-accessor" { capabilities = ["update"] }
"#;

impl<'a> Team<'a> {
    pub(super) async fn new(stage: &'a Stage, prefix: &str) -> Self {
        let namespace = stage.namespace(prefix).await.unwrap();
        let client = stage.client().await.unwrap();
        let team = Self {
            stage,
            namespace,
            client,
        };
        team.allow_in_vault().await;
        team
    }

    /// One policy for all tenants, which tells them apart; set up once per stage is enough, and
    /// writing it again changes nothing.
    async fn allow_in_vault(&self) {
        static ONE_AT_A_TIME: OnceCell<tokio::sync::Mutex<()>> = OnceCell::const_new();
        let lock = ONE_AT_A_TIME
            .get_or_init(|| async { tokio::sync::Mutex::new(()) })
            .await;
        let _turn = lock.lock().await;
        let vault = self.stage.vault();
        let mounts = vault.read("sys/auth").await.unwrap();
        let accessor = mounts["data"]["kubernetes/"]["accessor"].as_str().unwrap();
        vault
            .policy("tenant", &POLICY.replace("ACCESSOR", accessor))
            .await
            .unwrap();
    }

    /// The path of `name` in Vault below the mount `secret`.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }

    /// Writes a new version of the KV v2 secret `name`.
    pub async fn put(&self, name: &str, data: &Value) {
        self.stage
            .vault()
            .kv_put("secret", &self.path(name), data)
            .await
            .unwrap();
    }

    /// Applies a manifest in the namespace, server-side, as a person with kubectl would.
    pub async fn apply(&self, manifest: &Value) {
        let mut manifest = manifest.clone();
        manifest["metadata"]["namespace"] = json!(self.namespace);
        self.stage.apply_yaml(&manifest.to_string()).await.unwrap();
    }

    /// Applies a `VaultSecret` with one KV source of the same name, polled every two seconds. `extra` goes into its spec.
    pub async fn vault_secret(&self, name: &str, extra: Value) {
        let mut spec = json!({
            "refreshInterval": "2s",
            "sources": [{"name": "main", "kv": {"mount": "secret", "path": self.path(name)}}],
        });
        merge(&mut spec, extra);
        self.apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
            "metadata": {"name": name}, "spec": spec,
        }))
        .await;
    }

    /// Applies a Deployment of `replicas` pods that use the Secrets through `envFrom`.
    pub async fn deployment(&self, name: &str, replicas: u32, secrets: &[&str]) {
        self.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": env_from(secrets),
                },
            },
        }))
        .await;
    }

    /// The objects of one kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Secret called `name`.
    pub async fn secret(&self, name: &str) -> Option<Secret> {
        self.api::<Secret>().get_opt(name).await.unwrap()
    }

    /// Waits until key `key` of Secret `name` is `value`; returns the Secret.
    pub async fn secret_with(&self, name: &str, key: &str, value: &str) -> Secret {
        eventually(
            SOON,
            &format!("Secret {name} with {key}={value}"),
            async || {
                let secret = self.secret(name).await.ok_or("there is no Secret")?;
                let found = text_of(&secret, key);
                if found.as_deref() == Some(value) {
                    Ok(secret)
                } else {
                    Err(format!("{key} is {found:?}"))
                }
            },
        )
        .await
        .unwrap()
    }

    /// The condition `kind` of the `VaultSecret`, as `status reason: message`.
    pub async fn condition(&self, name: &str, kind: &str) -> Option<String> {
        let object = self.api::<VaultSecret>().get(name).await.unwrap();
        let conditions = object.status?.conditions;
        let found = conditions
            .into_iter()
            .find(|condition| condition.type_ == kind)?;
        Some(format!(
            "{} {}: {}",
            found.status, found.reason, found.message
        ))
    }

    /// Waits until the condition `kind` begins with `wanted`, such as `True InStep`; returns all of it.
    pub async fn condition_is(&self, name: &str, kind: &str, wanted: &str) -> String {
        eventually(SOON, &format!("{kind} of {name} is {wanted}"), async || {
            let found = self.condition(name, kind).await.unwrap_or_default();
            if found.starts_with(wanted) {
                Ok(found)
            } else {
                Err(found)
            }
        })
        .await
        .unwrap()
    }

    /// Waits until the `VaultSecret` is ready.
    pub async fn ready(&self, name: &str) {
        self.condition_is(name, "Ready", "True").await;
    }

    /// Changes an object by a merge patch, as another field manager.
    pub async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let params = PatchParams {
            field_manager: Some("somebody".into()),
            ..PatchParams::default()
        };
        self.api::<K>()
            .patch(name, &params, &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// Deletes an object.
    pub async fn delete<K>(&self, name: &str)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// The hash on the pod template of a Deployment.
    pub async fn stamp(&self, deployment: &str) -> Option<String> {
        let found = self.api::<Deployment>().get(deployment).await.unwrap();
        let template = found.spec?.template.metadata?.annotations?;
        template.get(SECRETS_HASH).cloned()
    }

    /// How often the pod template or another part of the spec changed.
    pub async fn generation(&self, deployment: &str) -> i64 {
        self.api::<Deployment>()
            .get(deployment)
            .await
            .unwrap()
            .metadata
            .generation
            .unwrap_or_default()
    }

    /// Waits until all pods of the Deployment are ready and none of an older template is left.
    pub async fn settled(&self, deployment: &str) {
        eventually(SOON, &format!("{deployment} is rolled out"), async || {
            let found = self.api::<Deployment>().get(deployment).await.unwrap();
            let wanted = found
                .spec
                .as_ref()
                .and_then(|spec| spec.replicas)
                .unwrap_or(1);
            let status = found.status.clone().unwrap_or_default();
            let counts = [
                status.replicas,
                status.updated_replicas,
                status.available_replicas,
            ];
            let done = counts
                .iter()
                .all(|count| count.unwrap_or_default() == wanted)
                && status.observed_generation == found.metadata.generation;
            if done {
                Ok(())
            } else {
                Err(format!("{counts:?} of {wanted}"))
            }
        })
        .await
        .unwrap();
    }

    /// The pods of a Deployment that are not on their way out.
    pub async fn pods(&self, deployment: &str) -> Vec<Pod> {
        let params = ListParams::default().labels(&format!("app={deployment}"));
        let pods = self.api::<Pod>().list(&params).await.unwrap();
        pods.items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect()
    }
}

/// The value of a key of a Secret as text.
pub fn text_of(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    Some(String::from_utf8_lossy(&value.0).into_owned())
}

/// Puts the members of `extra` into `base`.
pub fn merge(base: &mut Value, extra: Value) {
    let Value::Object(extra) = extra else {
        return;
    };
    for (key, value) in extra {
        base[key] = value;
    }
}
