//! What tests look at besides the Secret: whole objects, conditions that went, and what was sent to whom.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, ValidationDirective},
    core::{ApiResource, GroupVersionKind},
};
use lockstep::api::vault_secret::{VaultSecret, VaultSecretStatus};
use lockstep_testbed::{ApiRequest, AuditMark, VaultRequest, eventually};
use serde_json::{Value, json};

use super::{SOON, Stage, Team};

impl<'a> Team<'a> {
    /// The tenant of a namespace that is there already.
    pub async fn of(stage: &'a Stage, namespace: &str) -> Self {
        Self {
            stage,
            namespace: namespace.to_owned(),
            client: stage.client().await.unwrap(),
        }
    }
}

impl Team<'_> {
    /// The status of a `VaultSecret`; an empty one before there is any.
    pub async fn status(&self, name: &str) -> VaultSecretStatus {
        let object = self.api::<VaultSecret>().get(name).await.unwrap();
        object.status.unwrap_or_default()
    }

    /// Waits until the operator has reported on the current spec of the `VaultSecret`.
    pub async fn observed(&self, name: &str) {
        eventually(SOON, &format!("{name} is looked at"), async || {
            let object = self.api::<VaultSecret>().get(name).await.unwrap();
            let seen = object
                .status
                .as_ref()
                .and_then(|status| status.observed_generation);
            if seen == object.metadata.generation {
                Ok(())
            } else {
                Err(format!("generation {seen:?}"))
            }
        })
        .await
        .unwrap();
    }

    /// Waits until the `VaultSecret` is stalled for `reason`; the message has to hold every one of `words`.
    pub async fn stalled(&self, name: &str, reason: &str, words: &[&str]) {
        let told = self
            .condition_is(name, "Stalled", &format!("True {reason}: "))
            .await;
        for word in words {
            assert!(told.contains(word), "{name}: no {word:?} in {told:?}");
        }
    }

    /// Waits until nothing stalls the `VaultSecret` any more and it is ready.
    pub async fn healed(&self, name: &str) {
        self.ready(name).await;
        assert_eq!(self.condition(name, "Stalled").await, None, "{name}");
    }

    /// Waits until the status of an object says why it is stalled, and returns `reason: message`. Works for what does not decode.
    pub async fn told_of(&self, resource: &str, name: &str) -> String {
        let path = r#"{range .status.conditions[?(@.type=="Stalled")]}{.reason}: {.message}{end}"#;
        let path = format!("jsonpath={path}");
        let arguments = ["get", resource, name, "-n", &self.namespace, "-o", &path];
        eventually(SOON, &format!("{resource} {name} is stalled"), async || {
            let output = self.stage.kubectl(&arguments).await.unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            if said.is_empty() {
                Err(String::from_utf8(output.stderr).unwrap())
            } else {
                Ok(said)
            }
        })
        .await
        .unwrap()
    }

    /// The Secret to the letter, `managedFields` and `resourceVersion` included.
    pub async fn secret_to_the_letter(&self, name: &str) -> Value {
        let secret: Secret = self.api().get(name).await.unwrap();
        serde_json::to_value(secret).unwrap()
    }

    /// Returns after another `VaultSecret` of the namespace was created and polled twice with a change, which takes
    /// some seconds: whatever the operator would do again and again, it has done by then.
    pub async fn polled_twice(&self) {
        self.put("fence", &json!({"k": "0"})).await;
        self.vault_secret("fence", json!({})).await;
        for value in ["0", "1", "2"] {
            self.put("fence", &json!({"k": value})).await;
            self.secret_with("fence", "k", value).await;
        }
        self.delete::<VaultSecret>("fence").await;
    }

    /// Waits until the sources of the `VaultSecret` cannot be read for `reason`; the message has to hold every one
    /// of `words`.
    pub async fn unreachable(&self, name: &str, reason: &str, words: &[&str]) {
        let wanted = format!("False {reason}: ");
        let told = self.condition_is(name, "SourcesReachable", &wanted).await;
        for word in words {
            assert!(told.contains(word), "{name}: no {word:?} in {told:?}");
        }
        assert_eq!(self.condition(name, "Stalled").await, None, "{name}");
    }

    /// Waits until the condition about the sources of the `VaultSecret` says all of these words.
    pub async fn tells(&self, name: &str, words: &[&str]) {
        eventually(SOON, &format!("{name} tells {words:?}"), async || {
            let told = self.condition(name, "SourcesReachable").await;
            let told = told.unwrap_or_default();
            if words.iter().all(|word| told.contains(word)) {
                Ok(())
            } else {
                Err(told)
            }
        })
        .await
        .unwrap();
    }

    /// The requests since `mark` about objects of this namespace that change something.
    pub async fn writes_since(&self, mark: AuditMark) -> Vec<ApiRequest> {
        let ours = |request: &ApiRequest| request.namespace == self.namespace && request.is_write();
        self.stage.audit_since(mark, ours).await.unwrap()
    }

    /// The requests to Vault since `mark` that concern this namespace's paths, the tests' own excluded.
    pub fn reads_since(&self, mark: AuditMark) -> Vec<VaultRequest> {
        let ours =
            |request: &VaultRequest| !request.is_root && request.path.contains(&self.namespace);
        self.stage.vault_audit_since(mark, ours).unwrap()
    }
}

impl Stage {
    /// The samples of the operator, by name without its prefix, with labels without quotes.
    pub async fn samples(&self) -> BTreeMap<String, f64> {
        let text = self.operator().metrics().await.unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.filter_map(|line| line.rsplit_once(' '));
        pairs
            .filter_map(|(name, value)| {
                let name = name.strip_prefix("lockstep_")?.replace('"', "");
                Some((name, value.parse().ok()?))
            })
            .collect()
    }

    /// What the apiserver says to a server-side apply with strict field validation; nothing is kept.
    pub async fn admit(&self, manifest: &Value) -> Result<(), String> {
        let object: DynamicObject = serde_json::from_value(manifest.clone()).unwrap();
        let types = object.types.clone().unwrap();
        let kind = GroupVersionKind::try_from(&types).unwrap();
        let resource = ApiResource::from_gvk(&kind);
        let client = self.client().await.unwrap();
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client, &namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let params = PatchParams {
            dry_run: true,
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply("somebody")
        };
        let patch = Patch::Apply(manifest);
        match api.patch(&object.name_any(), &params, &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(status.message),
            Err(error) => panic!("{error:?}"),
        }
    }
}
