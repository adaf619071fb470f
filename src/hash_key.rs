//! Effects: apiserver, randomness. The key of the rotation hash, kept in a Secret of the operator's namespace.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, api::PostParams};

use crate::{
    names::{LOCKSTEP, MANAGED_BY},
    revision::{KEY_BYTES, RevisionKey},
    sensitive::Sensitive,
    telemetry::metrics::Metrics,
};

/// Name of the Secret.
pub const SECRET: &str = "lockstep-rotation-hash-key";
const ID: &str = "id";
const KEY: &str = "key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum HashKeyError {
    /// The Secret was not read.
    #[error("cannot read Secret {namespace}/{SECRET}, which holds the key of the rotation hash")]
    Read {
        /// The operator's namespace.
        namespace: String,
        /// What the apiserver said.
        source: kube::Error,
    },
    /// The Secret was not created.
    #[error("cannot create Secret {namespace}/{SECRET}, which holds the key of the rotation hash")]
    Create {
        /// The operator's namespace.
        namespace: String,
        /// What the apiserver said.
        source: kube::Error,
    },
    /// The Secret does not hold a key.
    #[error(
        "Secret {namespace}/{SECRET} must hold {ID} and a {KEY} of {KEY_BYTES} bytes; restore it, or delete it to have a new key made (every Secret is then re-labelled)"
    )]
    Form {
        /// The operator's namespace.
        namespace: String,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[from] getrandom::Error),
}

/// Reads the key, or makes one the first time.
pub async fn load(
    client: &Client,
    metrics: &Metrics,
    namespace: &str,
) -> Result<RevisionKey, HashKeyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let namespace = namespace.to_owned();
    let read = |source| HashKeyError::Read {
        namespace: namespace.clone(),
        source,
    };
    if let Some(found) = api.get_opt(SECRET).await.map_err(read)? {
        return parse(found, namespace);
    }
    let created = api
        .create(
            &PostParams::default(),
            &new_secret(&random_id()?, &random_key()?),
        )
        .await;
    metrics.apiserver_write("secrets", if created.is_ok() { "ok" } else { "error" });
    match created {
        Ok(created) => parse(created, namespace),
        // Another replica was first.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            parse(api.get(SECRET).await.map_err(read)?, namespace)
        }
        Err(source) => Err(HashKeyError::Create { namespace, source }),
    }
}

fn parse(secret: Secret, namespace: String) -> Result<RevisionKey, HashKeyError> {
    let mut data = secret.data.unwrap_or_default();
    let id = data.remove(ID).and_then(|id| String::from_utf8(id.0).ok());
    let key = data.remove(KEY).map(|key| Sensitive::new(key.0));
    id.zip(key)
        .and_then(|(id, key)| RevisionKey::new(id, key))
        .ok_or(HashKeyError::Form { namespace })
}

fn new_secret(id: &str, key: &Sensitive) -> Secret {
    let mut secret = Secret {
        type_: Some("Opaque".to_owned()),
        data: Some(
            [
                (ID.to_owned(), ByteString(id.as_bytes().to_vec())),
                (KEY.to_owned(), ByteString(key.expose().to_vec())),
            ]
            .into(),
        ),
        ..Secret::default()
    };
    secret.metadata.name = Some(SECRET.to_owned());
    secret.metadata.labels = Some([(MANAGED_BY.to_owned(), LOCKSTEP.to_owned())].into());
    secret
}

fn random_key() -> Result<Sensitive, getrandom::Error> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(Sensitive::new(bytes))
}

/// Tells one key from the next in what people see.
fn random_id() -> Result<String, getrandom::Error> {
    Ok(format!("k{:04x}", getrandom::u32()? & 0xffff))
}
