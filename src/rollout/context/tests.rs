//! Pure: tests.

use jiff::Timestamp;

use super::*;
use crate::{revision::Revision, rollout::fixtures::at, secret_view::Managed};

fn secret(revision: &str, since: Timestamp, version: &str) -> Arc<SecretView> {
    Arc::new(SecretView {
        uid: "s".into(),
        resource_version: version.into(),
        created: Some(at(1)),
        managed: Some(Managed {
            vault_secret: "vs".into(),
            revision: Revision::from_annotation(revision),
            data_since: since,
            again: false,
            merged: false,
            remove_keys: false,
            holdings: None,
            fields: 0,
        }),
    })
}

#[test]
fn a_secret_matters_when_its_data_or_its_owner_does() {
    let matters = |old, new| {
        secret_change_matters(&Change {
            key: ObjectKey::new("shop", "db"),
            old,
            new,
        })
    };
    let db = || Some(secret("k1:1", at(5), "1"));
    assert!(matters(None, db()));
    assert!(matters(db(), None));
    assert!(matters(db(), Some(secret("k1:2", at(5), "2"))));
    assert!(matters(db(), Some(secret("k1:1", at(6), "2"))));
    assert!(!matters(db(), Some(secret("k1:1", at(5), "2"))));
    assert!(!matters(None, None));
}
