//! Values that must not get out, and where one looks for them.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use kube::api::ObjectList;
use kube::core::DynamicObject;
use serde_json::Value;

use super::Stage;

/// Every kind the operator, or somebody because of it, writes.
const KINDS: &str = "vaultsecrets,vaultauths,clustervaultauths,vaultconnections,clustervaultconnections,\
    secrets,configmaps,events,events.events.k8s.io,deployments,replicasets,pods,leases,namespaces,serviceaccounts";

/// A text that is found however it was dressed up.
pub struct Canary {
    /// The text itself.
    pub text: String,
    forms: Vec<String>,
}

impl Canary {
    /// One for `purpose`, unlike any other text.
    pub fn new(purpose: &str) -> Self {
        let text = format!("canary-{purpose}-q7Zk4Xw9TdLm2Rvb8Yc");
        // In base64 it looks different for each place it may start at; what is shared with its neighbours is left out.
        let encoded = |before: usize| {
            let bytes = [&vec![b'x'; before], text.as_bytes()].concat();
            let all = STANDARD_NO_PAD.encode(bytes);
            let first = (before * 8).div_ceil(6);
            all[first..all.len() - 3].to_owned()
        };
        // As `Debug` prints bytes.
        let bytes = format!("{:?}", text.as_bytes());
        let hex = hex(text.as_bytes());
        let forms = vec![
            text["canary-".len()..].to_owned(),
            encoded(0),
            encoded(1),
            encoded(2),
            bytes.trim_matches(['[', ']']).to_owned(),
            hex.to_uppercase(),
            hex,
        ];
        Self { text, forms }
    }

    /// The first form of it that is in `text`, with what stands around it.
    pub fn found_in(&self, text: &str) -> Option<String> {
        let (at, form) = self
            .forms
            .iter()
            .find_map(|form| Some((text.find(form.as_str())?, form)))?;
        let around = |from: usize, to: usize| {
            String::from_utf8_lossy(&text.as_bytes()[from..to.min(text.len())]).into_owned()
        };
        Some(around(at.saturating_sub(300), at + form.len() + 100))
    }
}

/// Two lower-case digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// A place where something could have leaked to: what it is called, and all that is there.
pub type Place = (String, String);

impl Stage {
    /// Everything that people and machines can read of the operator's work, but for the values of Secrets.
    pub async fn public_places(&self) -> Vec<Place> {
        let mut places = vec![
            (
                "metrics".to_owned(),
                self.operator().metrics().await.unwrap(),
            ),
            (
                "readyz".to_owned(),
                self.operator().get("/readyz").await.unwrap(),
            ),
        ];
        for entry in std::fs::read_dir(self.directory()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("operator") || name.contains("audit") {
                let bytes = std::fs::read(&path).unwrap();
                places.push((name, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        for object in self.objects().await {
            let metadata = &object["metadata"];
            let name = format!(
                "{} {}/{}",
                object["kind"], metadata["namespace"], metadata["name"]
            );
            places.push((name, object.to_string()));
        }
        places
    }

    /// Every object there is, with its managed fields; of a Secret all but its data.
    async fn objects(&self) -> Vec<Value> {
        let output = self
            .kubectl(&["get", KINDS, "-A", "-o", "json", "--show-managed-fields"])
            .await
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let list: ObjectList<DynamicObject> = serde_json::from_slice(&output.stdout).unwrap();
        let objects = list.items.into_iter().map(|object| {
            let mut object = serde_json::to_value(object).unwrap();
            if object["kind"] == "Secret" {
                object.as_object_mut().unwrap().remove("data");
            }
            object
        });
        objects.collect()
    }
}
