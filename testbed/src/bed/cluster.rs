//! Effects: apiserver — what every bed holds from the start: fake nodes and the operator's namespace.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use crate::{error::BedError, eventually::eventually};

/// The namespace the operator runs in.
pub const OPERATOR_NAMESPACE: &str = "lockstep-system";

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

const PATIENCE: Duration = Duration::from_secs(30);

/// Creates the nodes and the operator's namespace, and returns when pods can run.
pub(crate) async fn furnish(client: &Client) -> Result<(), BedError> {
    for name in NODES {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some([("kwok.x-k8s.io/node".to_owned(), "fake".to_owned())].into()),
            labels: Some([("kubernetes.io/hostname".to_owned(), name.to_owned())].into()),
            ..ObjectMeta::default()
        };
        let node = Node {
            metadata,
            ..Node::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &node)
            .await?;
    }
    tokio::try_join!(
        create_namespace(client, OPERATOR_NAMESPACE),
        nodes_are_ready(client)
    )?;
    Ok(())
}

/// Creates a namespace and waits for its default `ServiceAccount`, without which no pod is admitted.
pub(crate) async fn create_namespace(client: &Client, name: &str) -> Result<(), BedError> {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    };
    let namespace = Namespace {
        metadata,
        ..Namespace::default()
    };
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    eventually(PATIENCE, "the default ServiceAccount", async || {
        accounts.get("default").await
    })
    .await?;
    Ok(())
}

async fn nodes_are_ready(client: &Client) -> Result<(), BedError> {
    let nodes: Api<Node> = Api::all(client.clone());
    eventually(PATIENCE, "nodes that take pods", async || {
        let found = nodes
            .list(&kube::api::ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let waiting: Vec<_> = found
            .items
            .iter()
            .filter(|node| !takes_pods(node))
            .collect();
        if found.items.len() == NODES.len() && waiting.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "{} nodes, {} of them not ready",
                found.items.len(),
                waiting.len()
            ))
        }
    })
    .await?;
    Ok(())
}

/// Ready, and the taint every new node starts with is gone.
fn takes_pods(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    ready && taints.is_empty()
}
