//! Pure: what is said of a watch that fails.

use std::time::{Duration, Instant};

use kube::{core::ApiResource, runtime::watcher};

use super::{answer, is_absent};
use crate::api::GROUP;

/// How soon it is said again that a kind is not installed.
const AGAIN: Duration = Duration::from_mins(10);

/// Of a watch that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// Its kind is not installed; what to do.
    Absent(String),
    /// Something else, which the error tells.
    Failed,
}

/// One watch: of which kind, and what was said of it.
#[derive(Debug)]
pub(super) struct Complaints {
    resource: ApiResource,
    absent: Option<Instant>,
}

impl Complaints {
    pub(super) fn about(resource: ApiResource) -> Self {
        Self {
            resource,
            absent: None,
        }
    }

    /// The kind as users know it.
    pub(super) fn kind(&self) -> &str {
        &self.resource.kind
    }

    /// What is to be said of `error` at `now`; nothing if that was said not long ago.
    pub(super) fn next(&mut self, error: &watcher::Error, now: Instant) -> Option<Complaint> {
        if !answer(error).is_some_and(is_absent) {
            return Some(Complaint::Failed);
        }
        if self.absent.is_some_and(|told| now < told + AGAIN) {
            return None;
        }
        self.absent = Some(now);
        let ApiResource {
            group,
            api_version,
            kind,
            ..
        } = &self.resource;
        let remedy = if group == GROUP {
            "is not installed: apply the files in crds/, or install the chart"
        } else {
            "is not served by this apiserver"
        };
        Some(Complaint::Absent(format!(
            "{kind} ({api_version}) {remedy}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use kube::core::Status;

    use super::*;
    use crate::api::vault_secret::VaultSecret;

    fn refused(code: u16) -> watcher::Error {
        let status =
            Status::failure("404 page not found", "Failed to parse error data").with_code(code);
        watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn a_kind_that_is_not_installed_is_told_once_and_then_rarely() {
        let start = Instant::now();
        let mut complaints = Complaints::about(ApiResource::erase::<VaultSecret>(&()));
        let absent = || {
            let words = "VaultSecret (lockstep.dev/v1alpha1) is not installed: apply the files in crds/, or install the chart";
            Some(Complaint::Absent(words.to_owned()))
        };
        let rows = [
            (0, 404, absent()),
            (1, 404, None),
            (30, 403, Some(Complaint::Failed)),
            (599, 404, None),
            (600, 404, absent()),
            (601, 404, None),
        ];
        for (second, code, expected) in rows {
            let now = start + Duration::from_secs(second);
            assert_eq!(complaints.next(&refused(code), now), expected, "{second}");
        }
        let other = watcher::Error::NoResourceVersion;
        assert_eq!(complaints.next(&other, start), Some(Complaint::Failed));
        assert_eq!(complaints.kind(), "VaultSecret");
    }

    #[test]
    fn a_kind_of_kubernetes_is_not_ours_to_install() {
        let mut complaints = Complaints::about(ApiResource::erase::<Deployment>(&()));
        let told = complaints.next(&refused(404), Instant::now());
        let words = "Deployment (apps/v1) is not served by this apiserver";
        assert_eq!(told, Some(Complaint::Absent(words.to_owned())));
    }
}
