//! Effects: apiserver. Stores tokens of Vault in a Secret of the operator's namespace (`--session-store=secret`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use tokio::time::timeout;

use crate::{
    names::{LOCKSTEP, MANAGED_BY, SESSION_MANAGER},
    revision::RevisionKey,
    sensitive::Sensitive,
    telemetry::metrics::Metrics,
    vault::stored::{Stored, TokenStore},
};

/// Name of the Secret.
pub const SECRET: &str = "lockstep-sessions";
/// How long one request to the apiserver may take: a login waits for it.
const LIMIT: Duration = Duration::from_secs(10);

/// Why the tokens are not known.
#[derive(Debug, thiserror::Error)]
pub enum SessionStoreError {
    /// The Secret was not read.
    #[error("cannot read Secret {namespace}/{SECRET}, which holds the tokens of Vault")]
    Read {
        /// The operator's namespace.
        namespace: String,
        /// What the apiserver said.
        source: kube::Error,
    },
}

/// The Secret, and the key of the digests in it.
struct Store {
    api: Api<Secret>,
    key: RevisionKey,
    metrics: Arc<Metrics>,
}

/// Reads what earlier processes stored.
pub async fn load(
    client: &Client,
    metrics: &Arc<Metrics>,
    namespace: &str,
    key: RevisionKey,
) -> Result<Stored, SessionStoreError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let read = |source| SessionStoreError::Read {
        namespace: namespace.to_owned(),
        source,
    };
    let secret = api.get_opt(SECRET).await.map_err(read)?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let tokens = data.into_iter();
    let tokens = tokens.map(|(name, ByteString(token))| (name, Sensitive::new(token)));
    let store = Store {
        api,
        key,
        metrics: Arc::clone(metrics),
    };
    Ok(Stored::new(Box::new(store), tokens.collect()))
}

impl TokenStore for Store {
    fn digest(&self, parts: &[String]) -> String {
        self.key.seal(parts)
    }

    fn write(&self, tokens: BTreeMap<String, Sensitive>) -> BoxFuture<'_, Result<(), String>> {
        self.apply(tokens).boxed()
    }
}

impl Store {
    async fn apply(&self, tokens: BTreeMap<String, Sensitive>) -> Result<(), String> {
        let data = tokens.into_iter();
        let data = data.map(|(name, token)| (name, ByteString(token.expose().to_vec())));
        let mut secret = Secret {
            type_: Some("Opaque".to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        };
        secret.metadata.name = Some(SECRET.to_owned());
        secret.metadata.labels = Some([(MANAGED_BY.to_owned(), LOCKSTEP.to_owned())].into());
        let params = PatchParams::apply(SESSION_MANAGER).force();
        let patch = Patch::Apply(&secret);
        // The answer holds no values.
        let written = timeout(LIMIT, self.api.patch_metadata(SECRET, &params, &patch)).await;
        let result = match written {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(kube::Error::Api(status))) => Err(format!(
                "the apiserver says {} ({})",
                status.reason, status.code
            )),
            Ok(Err(_)) | Err(_) => Err("the apiserver cannot be reached".to_owned()),
        };
        let word = if result.is_ok() { "ok" } else { "error" };
        self.metrics.apiserver_write("secrets", word);
        result
    }
}
