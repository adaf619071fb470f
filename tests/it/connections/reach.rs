//! Which addresses are spoken to.

use serde_json::json;

use super::{connection, over, told};
use crate::support::Stage;

#[tokio::test]
async fn the_metadata_service_of_a_cloud_is_never_spoken_to() {
    let stage = Stage::shared().await;
    let team = stage.team("metadata").await;
    let addresses = [
        ("ip", "http://169.254.169.254"),
        ("number", "http://2852039166:80/latest"),
        ("mapped", "http://[::ffff:a9fe:a9fe]"),
        ("name", "http://metadata.google.internal"),
    ];
    for (name, address) in addresses {
        connection(&team, name, json!({"address": address})).await;
    }
    for (name, _) in addresses {
        told(&team, name, "AddressNotAllowed: spec.address: ").await;
    }
    team.vault_secret("app", over("ip")).await;
    team.stalled(
        "app",
        "ConnectionUnusable",
        &["169.254.169.254", "never spoken to"],
    )
    .await;
}

#[tokio::test]
async fn an_address_outside_the_allow_list_is_not_spoken_to() {
    let mut stage = Stage::own_without_operator().await;
    let allowed = stage.vault_address();
    let list = format!("--allowed-vault-addresses=https://*.example.com,{allowed}");
    stage.start_operator(&[&list]).await;
    let team = stage.team("allowed").await;
    team.put("app", &json!({"k": "v"})).await;
    let front = crate::support::Front::start(stage.vault_socket().unwrap()).await;
    let outside = format!("http://{}", front.address());
    connection(&team, "outside", json!({"address": outside})).await;
    connection(&team, "inside", json!({"address": allowed})).await;
    team.vault_secret("outside", over("outside")).await;
    team.vault_secret("app", over("inside")).await;
    team.secret_with("app", "k", "v").await;
    let said = told(&team, "outside", "AddressNotAllowed").await;
    assert!(said.contains("--allowed-vault-addresses"), "{said}");
    team.stalled("outside", "ConnectionUnusable", &[&outside])
        .await;
    assert!(front.requests().is_empty());
}
