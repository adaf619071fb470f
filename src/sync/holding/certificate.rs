//! Effects: Vault, apiserver, randomness. Certificates: have one issued, and lay out anew the one that is held.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    holdings::Holdings,
    record::{Issued, Record, What},
    state::{Fresh, keys_of},
    useless::{Vain, leased},
};
use crate::{
    pki::{
        ask::Ask,
        certificate::{Bundle, Facts},
        key::PrivateKey,
        layout::{Keystores, layout},
    },
    sync::{
        Stop, Syncer,
        credentials::secret_value,
        held::Scope,
        outcome::SourceFailure,
        render::Data,
        resolve::{
            method::SecretKey,
            source::{Ask as SourceAsk, IssueAsk, IssueWhat, Source, pki::PkiAsk},
        },
    },
    vault::{
        error::{VaultError, VaultErrorKind},
        path::VaultNamespace,
        request::Request,
        session::Identity,
    },
};

/// The keys from which all others can be made again.
const PARTS: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Certificates that were laid out anew, until they are written.
#[derive(Default)]
pub(in crate::sync) struct LaidOut {
    data: BTreeMap<String, Data>,
    before: Vec<(String, Record)>,
    failure: Option<SourceFailure>,
}

impl LaidOut {
    /// What the source called `name` gives now.
    pub(in crate::sync) fn data(&self, name: &str) -> Option<&Data> {
        self.data.get(name)
    }

    /// Why one was not laid out anew; it stays as it was.
    pub(in crate::sync) fn failure(&self) -> Option<SourceFailure> {
        self.failure.clone()
    }

    /// It was not written.
    pub(in crate::sync) fn undo(self, held: &mut Holdings) {
        for (name, record) in self.before {
            if let Some(holding) = held.sources.get_mut(&name) {
                holding.record = record;
            }
        }
    }
}

/// What the spec says of the certificate that a source holds.
pub(super) enum Differs {
    /// Nothing else than before.
    Not,
    /// Other key stores, or other passwords of them; they can be made of what the Secret holds.
    Layout,
    /// The same, but they cannot.
    Lost,
}

/// Takes up whether the certificate is to be revoked some day; says what else is different.
pub(super) fn compare(held: &mut Holdings, source: &Source, ask: &IssueAsk) -> Differs {
    let (IssueWhat::Pki(pki), Some(holding)) = (&ask.what, held.sources.get_mut(&source.name))
    else {
        return Differs::Not;
    };
    let record = &mut holding.record;
    let What::Certificate { revoke, layout, .. } = &mut record.issued.what else {
        return Differs::Not;
    };
    // Counts from the next write on; until then the spec says it again after a restart.
    *revoke = pki.revoke;
    if *layout == pki.layout() {
        return Differs::Not;
    }
    let is_held = |part: &str| record.keys.get(part).is_some_and(|key| !key.is_empty());
    if PARTS.into_iter().all(is_held) {
        Differs::Layout
    } else {
        Differs::Lost
    }
}

impl Syncer {
    /// Has a certificate issued.
    pub(super) async fn certify(
        &self,
        identity: &Identity,
        namespace: Option<VaultNamespace>,
        pki: &PkiAsk,
    ) -> Result<(What, Data, Fresh), Vain> {
        let ask = &pki.certificate;
        // First of all what can fail without Vault: what is issued shall be usable.
        let keystores = self.keystores(pki).await?;
        let (key, parameters) = prepare(ask).await?;
        let made = |what| Issued {
            namespace: namespace.as_ref().map(ToString::to_string),
            connection: None,
            given: false,
            what,
        };
        let request = Request::issue(&ask.path, Some(&parameters))?.in_namespace(namespace.clone());
        let answer = self.sessions.issue(identity, &request).await;
        let (answer, parent) = answer.map_err(|error| ask.explained(error))?;
        let lease = answer.granted();
        let answer = answer.issued().map_err(|error| Vain {
            error,
            made: lease.map(|lease| made(leased(&lease, parent.clone()))),
        })?;
        let now = self.vault_clock(identity);
        let now = now.map(|clock| clock.time(Instant::now().into_std()));
        let parent = answer.lease.as_ref().and(parent);
        let recorded = |facts: Facts| What::Certificate {
            mount: ask.mount.to_string(),
            serial: facts.serial,
            not_before: facts.not_before,
            not_after: facts.not_after,
            issued: now.unwrap_or(facts.not_before),
            revoke: pki.revoke,
            layout: pki.layout(),
            parent: parent.clone(),
        };
        let bundle = ask.bundle(&answer.entries, key, now);
        let usable = bundle.map_err(|flaw| flaw.to_string()).and_then(|bundle| {
            let data = layout(&bundle, &keystores).map_err(|error| error.to_string())?;
            Ok((bundle.facts, data))
        });
        let (facts, data) = usable.map_err(|why| Vain {
            error: VaultError::new(VaultErrorKind::Invalid, &request, why),
            made: Facts::told(&answer.entries, now.unwrap_or_default())
                .map(|facts| made(recorded(facts))),
        })?;
        Ok((recorded(facts), data, Fresh::Certificate))
    }

    /// Lays out anew what the Secret holds of these sources. Nothing is issued.
    pub(in crate::sync) async fn lay_out(
        &self,
        scope: Scope<'_>,
        sources: &[&Source],
        held: &mut Holdings,
    ) -> Result<LaidOut, Stop> {
        let Scope {
            object, resolved, ..
        } = scope;
        let mut laid_out = LaidOut::default();
        if sources.is_empty() {
            return Ok(laid_out);
        }
        let live = self.live(object, &resolved.target.name, held).await?;
        for source in sources {
            let SourceAsk::Issue(IssueAsk {
                what: IssueWhat::Pki(pki),
                ..
            }) = &source.ask
            else {
                continue;
            };
            let Some(holding) = held.sources.get_mut(&source.name) else {
                continue;
            };
            // It is issued anew in this very pass, or somebody just changed the Secret.
            if holding.in_hand.is_some() || !holding.is_whole(&source.keys, &live.intact) {
                continue;
            }
            match self.lay_out_one(pki, &holding.carried(&live.data)).await {
                Ok(data) => {
                    let before = holding.record.clone();
                    holding.record.keys = keys_of(&source.keys, data.keys());
                    if let What::Certificate { layout, .. } = &mut holding.record.issued.what {
                        *layout = pki.layout();
                    }
                    laid_out.before.push((source.name.clone(), before));
                    laid_out.data.insert(source.name.clone(), data);
                }
                Err(error) => {
                    tracing::warn!(object = %object.key, source = source.name, %error, "the key stores were not made");
                    laid_out.failure = Some(SourceFailure::of(&source.name, &error));
                }
            }
        }
        Ok(laid_out)
    }

    async fn lay_out_one(&self, pki: &PkiAsk, held: &Data) -> Result<Data, VaultError> {
        let keystores = self.keystores(pki).await?;
        let bundle = Bundle::from_data(held).map_err(|flaw| refused(&pki.certificate, &flaw))?;
        layout(&bundle, &keystores).map_err(|error| refused(&pki.certificate, &error))
    }

    /// The passwords of the key stores.
    async fn keystores(&self, pki: &PkiAsk) -> Result<Keystores, VaultError> {
        let read = async |key: &Option<SecretKey>| match key {
            None => Ok(None),
            Some(key) => match secret_value(&self.client, key).await {
                Ok(password) => Ok(Some(password)),
                Err(error) => Err(refused(&pki.certificate, &error.message)),
            },
        };
        let keystores = Keystores {
            pkcs12: read(&pki.passwords.pkcs12).await?,
            jks: read(&pki.passwords.jks).await?,
        };
        keystores
            .check()
            .map_err(|error| refused(&pki.certificate, &error))?;
        Ok(keystores)
    }
}

/// A key, unless Vault makes it, and what to send. RSA takes its time, which other tasks do not wait for.
async fn prepare(
    ask: &Ask,
) -> Result<
    (
        Option<PrivateKey>,
        serde_json::Map<String, serde_json::Value>,
    ),
    VaultError,
> {
    let Some(kind) = ask.key_type else {
        return Ok((None, ask.parameters()));
    };
    let key = tokio::task::spawn_blocking(move || PrivateKey::generate(kind)).await;
    let key = key
        .map_err(|_| refused(ask, &"the task that makes the private key ended early"))?
        .map_err(|error| refused(ask, &error))?;
    let parameters = ask
        .parameters_for(&key)
        .map_err(|error| refused(ask, &error))?;
    Ok((Some(key), parameters))
}

fn refused(ask: &Ask, why: &impl ToString) -> VaultError {
    VaultError::refused("issue", ask.path.as_str(), why.to_string())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        time::{Duration, Instant as Moment},
    };

    use jiff::Timestamp;

    use super::super::{
        record::Issued,
        state::{Holding, Moment as At, Need, Todo, Wanted},
    };
    use super::*;
    use crate::{
        api::source::KeysSpec,
        vault::{
            clock::VaultClock,
            lease::{Parent, Terms},
        },
    };

    const HOUR: i64 = 3600;

    /// Valid from half a minute before Vault's zero on, for an hour; taken over from an earlier process.
    fn held(layout: Option<&str>, now: Moment) -> Holding {
        let second = |second| Timestamp::from_second(second).unwrap();
        let record = Record {
            ask: "a".into(),
            issued: Issued {
                namespace: None,
                connection: None,
                given: false,
                what: What::Certificate {
                    mount: "pki".into(),
                    serial: "0a".into(),
                    not_before: second(-30),
                    not_after: second(HOUR),
                    issued: second(0),
                    revoke: false,
                    layout: layout.map(str::to_owned),
                    parent: None,
                },
            },
            at: second(0),
            rotate: None,
            keys: PARTS.map(|key| (key.to_owned(), key.to_owned())).into(),
            unproven: false,
        };
        let moment = At {
            clock: second(0),
            now,
        };
        Holding::taken_over(record, Duration::from_secs(1), moment, 7)
    }

    fn intact() -> BTreeSet<String> {
        PARTS.map(str::to_owned).into()
    }

    /// What is done about it when it is `second` at Vault; by our own clock it is any time.
    fn todo(second: Option<i64>, ask: &str, intact: &BTreeSet<String>) -> Todo {
        let now = Moment::now();
        let told = |second: i64| VaultClock::told(Timestamp::from_second(second - 1).unwrap(), now);
        let keys = KeysSpec::default();
        let wanted = Wanted {
            ask,
            rotate: None,
            terms: Terms {
                renew_at: 0.5,
                check_every: Duration::from_mins(1),
                parent: Parent::Lives,
            },
            vault: second.map(told),
            keys: &keys,
            intact: Some(intact),
        };
        held(None, now).decide(&wanted, None, now)
    }

    #[test]
    fn it_is_replaced_at_its_age_by_the_clock_of_vault_and_not_before() {
        let ageing = Todo::Issue(Need::Ageing);
        for second in [-HOUR, 0, 1, HOUR * 45 / 100 - 1] {
            assert!(
                matches!(todo(Some(second), "a", &intact()), Todo::Wait(_)),
                "{second}"
            );
        }
        for second in [HOUR / 2, HOUR - 1, HOUR, 9 * HOUR] {
            assert_eq!(todo(Some(second), "a", &intact()), ageing, "{second}");
        }
    }

    #[test]
    fn as_long_as_the_time_at_vault_is_not_known_nothing_is_replaced() {
        assert!(matches!(todo(None, "a", &intact()), Todo::Wait(_)));
    }

    #[test]
    fn another_ask_and_lost_values_are_reasons_at_once() {
        let lost = BTreeSet::from(["tls.crt".to_owned()]);
        let rows = [
            ("b", intact(), Need::AskChanged),
            ("a", lost, Need::ValuesLost),
            ("a", BTreeSet::new(), Need::ValuesLost),
        ];
        for (ask, intact, need) in rows {
            assert_eq!(todo(Some(0), ask, &intact), Todo::Issue(need));
        }
    }

    #[test]
    fn it_is_known_how_long_it_lives() {
        let now = Moment::now();
        let at = |second: i64| {
            Some(VaultClock::told(
                Timestamp::from_second(second - 1).unwrap(),
                now,
            ))
        };
        let left = |second| held(None, now).left(at(second), now);
        assert_eq!(left(0), Some(Duration::from_hours(1)));
        assert_eq!(left(3599), Some(Duration::from_secs(1)));
        assert_eq!(left(3600), Some(Duration::ZERO));
        assert_eq!(left(9000), Some(Duration::ZERO));
        assert_eq!(held(None, now).left(None, now), None);
    }
}
