//! Effects: Vault — goes on with the token of an earlier process, where tokens are stored.

use std::time::Instant;

use tracing::info;

use super::{LoginFailure, Session, is_final};
use crate::vault::identity::LoginStep;
use crate::vault::request::Request;
use crate::vault::token::{Grant, Origin};
use crate::vault::transport::now;

impl Session {
    /// Says, too, when the token was granted.
    pub(super) async fn resume_or_log_in(&self) -> Result<(Grant, Instant), LoginFailure> {
        let at = now();
        if let Some(grant) = self.resume().await? {
            info!(identity = %self.identity.key, "goes on with the Vault token of an earlier process");
            return Ok((grant, at));
        }
        let grant = self.try_log_in().await?;
        let at = now();
        info!(identity = %self.identity.key, "logged in to Vault");
        if let Some(stored) = &self.stored
            && grant.origin == Origin::Login
        {
            // Before it is used: leases that depend on it have to outlive a process that is killed.
            stored
                .save(&self.identity.key, &grant.accessor, &grant.secret)
                .await;
        }
        Ok((grant, at))
    }

    /// The token that an earlier process stored, if it lives.
    async fn resume(&self) -> Result<Option<Grant>, LoginFailure> {
        let key = &self.identity.key;
        let stored = self.stored.as_ref();
        let Some((stored, secret)) =
            stored.and_then(|stored| Some((stored, stored.inherited(key)?)))
        else {
            return Ok(None);
        };
        let request = self.in_namespace(&Request::token_lookup());
        let answer = self.identity.transport.send(&request, Some(&secret)).await;
        let info = match answer.and_then(|answer| answer.token_info()) {
            Ok(info) => info,
            Err(error) if is_final(error.kind) => {
                info!(identity = %key, %error, "the Vault token of an earlier process has ended");
                stored.forget(key);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if self.identity.credentials.shows_certificate() {
            let method = self.identity.credentials.login_method().await;
            let method = method.map_err(|error| self.without_credential(&error))?;
            if let LoginStep::SendCertified(_, certificate) = method.step()? {
                *self.certified() = Some(self.over(&certificate)?);
            }
        }
        stored.taken(key);
        Ok(Some(Grant {
            secret,
            accessor: info.accessor,
            origin: Origin::Login,
            ttl: info.ttl,
            renewable: info.renewable,
        }))
    }
}
