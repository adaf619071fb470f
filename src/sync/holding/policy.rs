//! Pure: what Vault's policy lacks for leases to be kept.

use std::collections::BTreeMap;

use super::{
    ending::{Ending, Hindrance},
    holdings::Holdings,
    maybe::Found,
    record::What,
    state::Holding,
};
use crate::vault::lease::Asked;

/// What most lines grant.
const UPDATE: &str = "\"update\"";

/// What Vault's policy lacks, as lines for a policy; `None` when it lacks nothing.
pub(in crate::sync) fn missing_policy(
    held: &Holdings,
    may_not_keep: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut lines: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    let mut lacks = |path: &str, what| lines.insert(path.to_owned(), (what, UPDATE));
    for ending in held
        .superseded
        .iter()
        .filter(|ending| !ending.done && ending.hindrance == Some(Hindrance::Denied))
    {
        match &ending.what.issued.what {
            What::Certificate { mount, .. } => lacks(
                &format!("{mount}/revoke"),
                "replaced certificates are not revoked and stay valid until their end",
            ),
            What::Lease { .. } | What::Unleased {} => lacks(
                "sys/leases/revoke",
                "replaced leases are not revoked and live on until their TTL",
            ),
        };
    }
    let parents = held
        .sources
        .values()
        .filter_map(|holding| holding.record.issued.parent());
    if parents.into_iter().any(may_not_keep) {
        lacks(
            "auth/token/renew-accessor",
            "leases of an earlier process cannot be kept and are replaced one after the other",
        );
    }
    let leases = held.sources.values().filter_map(Holding::lease);
    for lease in leases.chain(held.superseded.iter().filter_map(Ending::lease)) {
        if lease.is_denied(Asked::Renewal) {
            lacks("sys/leases/renew", "leases are not renewed");
        }
        if lease.is_denied(Asked::LookUp) {
            lacks("sys/leases/lookup", "whether a lease lives is not known");
        }
    }
    let sought = held.maybes.iter();
    for maybe in sought.filter(|maybe| maybe.found == Found::NotAllowed) {
        lines.insert(
            format!("sys/leases/lookup/{}/", maybe.path),
            (
                "a lease may have been issued although no answer came; it would live until its TTL, and which one it is cannot be said",
                "\"list\", \"sudo\"",
            ),
        );
    }
    (!lines.is_empty()).then(|| {
        let lines = lines.into_iter().map(|(path, (lack, capabilities))| {
            format!("{lack}: path \"{path}\" {{ capabilities = [{capabilities}] }}")
        });
        format!(
            "the Vault policy of this login lacks lines; {}",
            lines.collect::<Vec<_>>().join("; ")
        )
    })
}
