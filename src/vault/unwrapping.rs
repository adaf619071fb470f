//! Effects: Vault — secret ids that come response-wrapped: each is unwrapped once, and kept for later logins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{VaultError, VaultErrorKind};
use super::identity::{CredentialError, Remedy};
use super::path::{MountPath, VaultNamespace};
use super::request::Request;
use super::transport::Transport;
use crate::sensitive::Sensitive;

/// What was unwrapped, by the place of the wrapping token. In memory alone, and longer than a session:
/// the wrapping token is used up, so who loses the secret id cannot log in again.
#[derive(Debug, Default)]
pub(super) struct Unwrapped(Mutex<HashMap<String, Slot>>);

/// Locked while the token of one place is unwrapped.
type Slot = Arc<tokio::sync::Mutex<Option<Kept>>>;

#[derive(Debug)]
struct Kept {
    token: Sensitive,
    made_at: String,
    secret_id: Sensitive,
}

/// A wrapping token, and where it is from.
pub(super) struct Wrapped<'a> {
    pub(super) place: &'a str,
    pub(super) token: &'a Sensitive,
    pub(super) mount: &'a MountPath,
    pub(super) namespace: Option<&'a VaultNamespace>,
}

/// Why there is no secret id.
pub(super) enum UnwrapError {
    /// Vault did not answer as it should.
    Vault(VaultError),
    /// It needs another wrapping token.
    Credential(CredentialError),
}

impl From<VaultError> for UnwrapError {
    fn from(error: VaultError) -> Self {
        // For whoever waits for the login this is a part of it.
        Self::Vault(VaultError {
            operation: "login",
            ..error
        })
    }
}

impl Unwrapped {
    /// The secret id in `wrapped`: kept from the first time, or unwrapped now.
    pub(super) async fn secret_id(
        &self,
        transport: &Transport,
        wrapped: &Wrapped<'_>,
    ) -> Result<Sensitive, UnwrapError> {
        let slot = self.slot(wrapped.place);
        let mut slot = slot.lock().await;
        if let Some(kept) = slot.as_ref().filter(|kept| kept.token == *wrapped.token) {
            is_of_mount(&kept.made_at, wrapped)?;
            return Ok(kept.secret_id.clone());
        }
        let made_at = made_at(transport, wrapped).await?;
        is_of_mount(&made_at, wrapped)?;
        let secret_id = unwrap(transport, wrapped).await?;
        *slot = Some(Kept {
            token: wrapped.token.clone(),
            made_at,
            secret_id: secret_id.clone(),
        });
        Ok(secret_id)
    }

    fn slot(&self, place: &str) -> Slot {
        // A panic between two inserts leaves the map whole.
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(place.to_owned()).or_default())
    }
}

async fn made_at(transport: &Transport, wrapped: &Wrapped<'_>) -> Result<String, UnwrapError> {
    let lookup = Request::wrapping_lookup(wrapped.mount, wrapped.token)?
        .in_namespace(wrapped.namespace.cloned());
    let answer = transport.send(&lookup, None).await;
    let answer = answer.map_err(|error| used_up(error, wrapped))?;
    Ok(answer.wrapping_path()?)
}

async fn unwrap(transport: &Transport, wrapped: &Wrapped<'_>) -> Result<Sensitive, UnwrapError> {
    let request = Request::unwrap().in_namespace(wrapped.namespace.cloned());
    let answer = transport.send(&request, Some(wrapped.token)).await;
    let answer = answer.map_err(|error| used_up(error, wrapped))?;
    Ok(answer.secret_id()?)
}

/// Whether a token that was made at `path` can hold a secret id of a role of the mount. A token that somebody
/// put in the place of the real one was made elsewhere, as at `sys/wrapping/wrap`.
fn is_of_mount(path: &str, wrapped: &Wrapped<'_>) -> Result<(), UnwrapError> {
    let Wrapped { place, mount, .. } = wrapped;
    let role = path
        .strip_prefix(&format!("auth/{mount}/role/"))
        .and_then(|rest| rest.strip_suffix("/secret-id"));
    if role.is_some_and(|role| !role.is_empty() && !role.contains('/')) {
        return Ok(());
    }
    Err(needs_another(format!(
        "the wrapping token in {place} was made at {path}, not at auth/{mount}/role/<role>/secret-id, and was not unwrapped: find out who put it there, and put the right one in its place"
    )))
}

/// What a refusal of the token means. A token that cannot be unwrapped although nobody here did is the one sign
/// that somebody else has its secret id.
fn used_up(error: VaultError, wrapped: &Wrapped<'_>) -> UnwrapError {
    let place = wrapped.place;
    match error.kind {
        VaultErrorKind::Denied | VaultErrorKind::NotFound | VaultErrorKind::Invalid
            if error.by_vault =>
        {
            needs_another(format!(
                "the wrapping token in {place} has expired or was unwrapped before. If neither an earlier process of this operator nor you unwrapped it, somebody else has the secret id: destroy it in Vault. Then put a new wrapping token there"
            ))
        }
        VaultErrorKind::Refused => needs_another(format!(
            "what {place} holds cannot be a wrapping token ({}); put one there",
            error.detail
        )),
        VaultErrorKind::Denied
        | VaultErrorKind::NotFound
        | VaultErrorKind::Invalid
        | VaultErrorKind::Deleted
        | VaultErrorKind::Sealed
        | VaultErrorKind::Throttled
        | VaultErrorKind::Unavailable
        | VaultErrorKind::Unreachable
        | VaultErrorKind::CredentialUnavailable => error.into(),
    }
}

fn needs_another(message: String) -> UnwrapError {
    UnwrapError::Credential(CredentialError {
        message,
        remedy: Remedy::Edit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_made_for_a_secret_id_of_the_mount_is_unwrapped() {
        let mount = MountPath::parse("team/approle").unwrap();
        let token = Sensitive::new("canary-5f1c");
        let wrapped = Wrapped {
            place: "key k of Secret a/b",
            token: &token,
            mount: &mount,
            namespace: None,
        };
        for (path, good) in [
            ("auth/team/approle/role/web/secret-id", true),
            ("auth/approle/role/web/secret-id", false),
            ("auth/team/approle/role//secret-id", false),
            ("auth/team/approle/role/a/b/secret-id", false),
            ("auth/team/approle/role/web/role-id", false),
            ("sys/wrapping/wrap", false),
        ] {
            match is_of_mount(path, &wrapped) {
                Ok(()) => assert!(good, "{path}"),
                Err(UnwrapError::Credential(error)) => {
                    assert!(!good && error.message.contains(path), "{error}");
                    assert_eq!(error.remedy, Remedy::Edit);
                }
                Err(UnwrapError::Vault(error)) => panic!("{error}"),
            }
        }
    }
}
