//! What cannot work is told once, costs next to nothing, harms nothing, and heals when it is corrected.

mod in_vault;
mod references;
mod spec;

use serde_json::{Value, json};

use crate::support::Team;

/// A `VaultSecret` that was good and gets something wrong.
struct Mistake {
    name: &'static str,
    /// What its spec becomes.
    wrong: Value,
    /// The reason it is told with.
    reason: &'static str,
    /// What the message has to hold.
    words: Vec<String>,
    /// How often Vault may be read for it in the few seconds of the test, besides.
    reads: usize,
}

impl Mistake {
    fn new(name: &'static str, wrong: Value, reason: &'static str, words: &[&str]) -> Self {
        Self {
            name,
            wrong,
            reason,
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            reads: 0,
        }
    }

    /// It may heal in Vault, of which no event tells: it is polled as always.
    fn polled(self) -> Self {
        Self { reads: 8, ..self }
    }

    fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }
}

/// Makes a good Secret for each.
async fn good_secrets(team: &Team<'_>, mistakes: &[Mistake]) {
    for Mistake { name, .. } in mistakes {
        team.put(name, &json!({"k": "good"})).await;
        team.vault_secret(name, json!({})).await;
    }
    for Mistake { name, .. } in mistakes {
        team.ready(name).await;
    }
}

/// Makes each mistake, and proves that it is told, that the last good Secret stays, and that nothing is repeated.
async fn made(team: &Team<'_>, mistakes: &[Mistake]) {
    let mut kept = Vec::new();
    for Mistake { name, wrong, .. } in mistakes {
        kept.push(team.secret_to_the_letter(name).await);
        team.vault_secret(name, wrong.clone()).await;
    }
    for mistake in mistakes {
        let Mistake { name, reason, .. } = mistake;
        team.stalled(name, reason, &mistake.words()).await;
        team.condition_is(name, "Ready", &format!("False {reason}: "))
            .await;
    }
    quiet(team, mistakes).await;
    for (mistake, kept) in mistakes.iter().zip(kept) {
        let name = mistake.name;
        assert_eq!(team.secret_to_the_letter(name).await, kept, "{name}");
    }
}

/// Nothing is written about these objects, and Vault is read no more often than allowed.
async fn quiet(team: &Team<'_>, mistakes: &[Mistake]) {
    let mark = team.stage.audit_mark().await.unwrap();
    let vault_mark = team.stage.vault_audit_mark().unwrap();
    team.polled_twice().await;
    let writes = team.writes_since(mark).await;
    let reads = team.reads_since(vault_mark);
    for Mistake {
        name,
        reads: allowed,
        ..
    } in mistakes
    {
        let written: Vec<_> = writes.iter().filter(|write| write.name == *name).collect();
        assert!(written.is_empty(), "{name}: {written:#?}");
        let path = format!("/{name}");
        let read: Vec<_> = reads
            .iter()
            .filter(|read| read.path.ends_with(&path))
            .collect();
        assert!(read.len() <= *allowed, "{name}: {read:#?}");
    }
}

/// Waits until each of them is ready with `value` under `k`.
async fn all_hold(team: &Team<'_>, mistakes: &[Mistake], value: &str) {
    for Mistake { name, .. } in mistakes {
        team.secret_with(name, "k", value).await;
        team.healed(name).await;
    }
}
