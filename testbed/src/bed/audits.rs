//! Effects: files, apiserver — reads the audit logs: who asked for what since a moment.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::{Bed, kubernetes::AUDIT_LOG};
use crate::{
    audit::{ApiRequest, AuditMark, VaultRequest, log},
    error::BedError,
    eventually::eventually,
};

/// The start of the name of the object that a fence asks for.
const FENCE: &str = "testbed-fence-";

impl Bed {
    /// Now, in the apiserver's audit log: every request that was answered before this call is before the mark.
    pub async fn audit_mark(&self) -> Result<AuditMark, BedError> {
        self.fence().await?;
        let path = self.directory.join(AUDIT_LOG);
        log::end(&path).map_err(BedError::file(&path))
    }

    /// The requests to the apiserver since `mark` that `wanted` picks, oldest first.
    pub async fn audit_since(
        &self,
        mark: AuditMark,
        wanted: impl Fn(&ApiRequest) -> bool,
    ) -> Result<Vec<ApiRequest>, BedError> {
        self.fence().await?;
        let mut requests = self.logged_since(mark)?;
        requests.retain(|request| !request.name.starts_with(FENCE) && wanted(request));
        Ok(requests)
    }

    /// The writes since `mark` by clients whose `User-Agent` starts with `user_agent`, renewals of a Lease excluded.
    pub async fn writes_by(
        &self,
        mark: AuditMark,
        user_agent: &str,
    ) -> Result<Vec<ApiRequest>, BedError> {
        let wanted = |request: &ApiRequest| {
            request.user_agent.starts_with(user_agent) && request.is_write() && !request.is_lease()
        };
        self.audit_since(mark, wanted).await
    }

    /// Now, in Vault's audit log.
    pub fn vault_audit_mark(&self) -> Result<AuditMark, BedError> {
        let path = &self.vault.audit_log;
        log::end(path).map_err(BedError::file(path))
    }

    /// The requests to Vault since `mark` that `wanted` picks, oldest first. The tests' own are `is_root`.
    ///
    /// Vault writes its log before it answers, so whatever was answered is there.
    pub fn vault_audit_since(
        &self,
        mark: AuditMark,
        wanted: impl Fn(&VaultRequest) -> bool,
    ) -> Result<Vec<VaultRequest>, BedError> {
        let path = &self.vault.audit_log;
        let entries = log::since(path, mark).map_err(BedError::file(path))?;
        Ok(entries
            .iter()
            .filter_map(VaultRequest::parse)
            .filter(wanted)
            .collect())
    }

    fn logged_since(&self, mark: AuditMark) -> Result<Vec<ApiRequest>, BedError> {
        let path = self.directory.join(AUDIT_LOG);
        let entries = log::since(&path, mark).map_err(BedError::file(&path))?;
        Ok(entries.iter().filter_map(ApiRequest::parse).collect())
    }

    /// Makes a request of our own and waits until it is logged.
    ///
    /// The apiserver logs a request just after it answered it, so without this the last ones could be missing.
    async fn fence(&self) -> Result<(), BedError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{FENCE}{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let path = self.directory.join(AUDIT_LOG);
        let before = log::end(&path).map_err(BedError::file(&path))?;
        let objects: Api<ConfigMap> = Api::namespaced(self.client().await?, "default");
        objects.get_opt(&name).await?;
        eventually(
            Duration::from_secs(10),
            "the fence in the audit log",
            async || {
                self.logged_since(before)
                    .map(|requests| requests.iter().any(|request| request.name == name))
                    .map_err(|error| error.to_string())
                    .and_then(|found| {
                        found
                            .then_some(())
                            .ok_or_else(|| "it is not there".to_owned())
                    })
            },
        )
        .await?;
        Ok(())
    }
}
