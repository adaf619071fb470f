//! Pure: tests.

use jiff::Timestamp;

use super::*;
use crate::{
    revision::Revision,
    rollout::fixtures::{at, deployment, view},
    secret_view::Managed,
};

fn secret(revision: &str, since: Timestamp, version: &str) -> Option<Arc<SecretView>> {
    Some(Arc::new(SecretView {
        uid: "s".into(),
        resource_version: version.into(),
        created: Some(at(1)),
        managed: Some(Managed {
            vault_secret: "vs".into(),
            revision: Revision::from_annotation(revision),
            data_since: since,
            written: since,
            controller: None,
            remove_keys: false,
            fields: 0,
        }),
    }))
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
    let db = || secret("k1:1", at(5), "1");
    assert!(matters(None, db()));
    assert!(matters(db(), None));
    assert!(matters(db(), secret("k1:2", at(5), "2")));
    assert!(matters(db(), secret("k1:1", at(6), "2")));
    assert!(!matters(db(), secret("k1:1", at(5), "2")));
    assert!(!matters(None, None));
}

#[test]
fn a_changed_workload_has_the_kind_of_its_view() {
    let key = ObjectKey::new("shop", "web");
    let change = |old: bool, new: bool| Change {
        key: key.clone(),
        old: old.then(|| Arc::new(view())),
        new: new.then(|| Arc::new(view())),
    };
    assert_eq!(
        changed_workload(&change(false, true)),
        Some(deployment("web"))
    );
    assert_eq!(
        changed_workload(&change(true, false)),
        Some(deployment("web"))
    );
    assert_eq!(changed_workload(&change(false, false)), None);
}
