//! Pure: which identities are in use, and which tokens are needed by what was issued with them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::vault::{backoff, identity::IdentityKey, keeper::Keeper, session::Identity};

/// Who asks Vault as whom, and who depends on which tokens, by their accessors.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    users: BTreeMap<String, IdentityKey>,
    used: HashMap<IdentityKey, usize>,
    by_owner: BTreeMap<String, BTreeSet<Arc<str>>>,
    tokens: BTreeMap<Arc<str>, Kept>,
}

/// One token that something depends on.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its life, if it is a token of an earlier process.
    pub(super) keeper: Keeper,
    /// By whom it is kept alive.
    identity: Identity,
    /// Whose token it is, if it is one of this process.
    issuer: Option<IdentityKey>,
    owners: usize,
}

impl Kept {
    /// Whose token it is, if it is one of this process.
    pub(super) fn issuer(&self) -> Option<&IdentityKey> {
        self.issuer.as_ref()
    }
}

impl Dependents {
    /// `owner` asks Vault as `identity` and as nobody else. Says whether an identity came into use
    /// or fell out of use.
    pub(super) fn used_by(&mut self, owner: &str, identity: Option<&IdentityKey>) -> bool {
        let before = self.users.get(owner);
        if before == identity {
            return false;
        }
        let mut changed = false;
        if let Some(left) = self.users.remove(owner)
            && let Some(count) = self.used.get_mut(&left)
        {
            *count -= 1;
            if *count == 0 {
                self.used.remove(&left);
                changed = true;
            }
        }
        if let Some(identity) = identity {
            let count = self.used.entry(identity.clone()).or_default();
            changed |= *count == 0;
            *count += 1;
            self.users.insert(owner.to_owned(), identity.clone());
        }
        changed
    }

    /// Whether somebody asks Vault as `identity`.
    pub(super) fn is_used(&self, identity: &IdentityKey) -> bool {
        self.used.contains_key(identity)
    }

    /// `owner` depends on exactly these; returns those that nobody depended on before, and `None` if nothing changed.
    pub(super) fn set(&mut self, owner: &str, accessors: BTreeSet<&str>) -> Option<Vec<Arc<str>>> {
        let before = self.by_owner.get(owner);
        let before = before.into_iter().flatten().map(|accessor| &**accessor);
        if before.eq(accessors.iter().copied()) {
            return None;
        }
        let before = self.by_owner.remove(owner).unwrap_or_default();
        let after: BTreeSet<Arc<str>> = accessors.into_iter().map(Arc::from).collect();
        for gone in before.difference(&after) {
            if let Some(kept) = self.tokens.get_mut(gone) {
                kept.owners -= 1;
                if kept.owners == 0 {
                    self.tokens.remove(gone);
                }
            }
        }
        let mut new = Vec::new();
        for come in after.difference(&before) {
            match self.tokens.get_mut(come) {
                Some(kept) => kept.owners += 1,
                None => new.push(Arc::clone(come)),
            }
        }
        if !after.is_empty() {
            self.by_owner.insert(owner.to_owned(), after);
        }
        Some(new)
    }

    /// Begins to keep a token that somebody began to depend on. Says who keeps it and whose it is.
    pub(super) fn keep(
        &mut self,
        accessor: Arc<str>,
        (identity, issuer): (&Identity, Option<IdentityKey>),
        now: Instant,
    ) {
        let kept = Kept {
            keeper: Keeper::new(now, backoff::seed_of(&accessor)),
            identity: identity.clone(),
            issuer,
            owners: 1,
        };
        self.tokens.insert(accessor, kept);
    }

    /// The tokens of `owner` are from now on kept alive by `identity`.
    pub(super) fn served_by(&mut self, owner: &str, identity: &Identity) {
        for accessor in self.by_owner.get(owner).into_iter().flatten() {
            if let Some(kept) = self.tokens.get_mut(accessor) {
                kept.identity = identity.clone();
            }
        }
    }

    pub(super) fn get(&self, accessor: &str) -> Option<&Kept> {
        self.tokens.get(accessor)
    }

    pub(super) fn get_mut(&mut self, accessor: &str) -> Option<&mut Kept> {
        self.tokens.get_mut(accessor)
    }

    /// The tokens that something depends on.
    pub(super) fn accessors(&self) -> HashSet<Arc<str>> {
        self.tokens.keys().cloned().collect()
    }

    /// When tokens of earlier processes are to be renewed.
    pub(super) fn renewals(&self) -> impl Iterator<Item = Instant> {
        self.foreign()
            .filter_map(|(_, kept)| kept.keeper.renew_at())
    }

    /// Those to be renewed now, and by whom.
    pub(super) fn due(&self, now: Instant) -> Vec<(Arc<str>, Identity)> {
        let due = self
            .foreign()
            .filter(|(_, kept)| kept.keeper.renew_at().is_some_and(|at| at <= now));
        due.map(|(accessor, kept)| (Arc::clone(accessor), kept.identity.clone()))
            .collect()
    }

    /// The identities without which leases end: those whose own tokens something depends on, and those that keep
    /// the tokens of earlier processes.
    pub(super) fn needed(&self) -> HashSet<IdentityKey> {
        let needed = self.tokens.values().filter_map(|kept| {
            let keeps = || kept.keeper.renew_at().map(|_| &kept.identity.key);
            kept.issuer.as_ref().or_else(keeps).cloned()
        });
        needed.collect()
    }

    /// The tokens of this process that `owner` depends on, and whose they are.
    pub(super) fn issued_to(&self, owner: &str) -> impl Iterator<Item = (&str, &IdentityKey)> {
        let accessors = self.by_owner.get(owner).into_iter().flatten();
        accessors
            .filter_map(|accessor| Some((&**accessor, self.tokens.get(accessor)?.issuer.as_ref()?)))
    }

    fn foreign(&self) -> impl Iterator<Item = (&Arc<str>, &Kept)> {
        self.tokens.iter().filter(|(_, kept)| kept.issuer.is_none())
    }
}
