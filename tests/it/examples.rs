//! The examples are true: each is taken by the apiserver as it stands, stays as it is, and does what it says.

use std::{fs, path::PathBuf, process::Stdio};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};
use lockstep::api::GROUP;
use lockstep_testbed::{VaultKind, eventually, parts::Tool};
use serde_json::Value;

use crate::support::{SOON, Stage};

/// Where Vault is in the examples, and in a cluster with Vault's Helm chart.
const HTTP: &str = "http://vault.vault.svc:8200";
const HTTPS: &str = "https://vault.vault.svc:8200";

/// Where Vault in the cluster reads the keys of the cluster's issuer, and a directory.
const APISERVER: &str = "https://kubernetes.default.svc/openid";
const DIRECTORY: &str = "ldap://ldap.example.com";

/// The lines of a comment that are to be typed begin like this.
const PROMPT: &str = "# $ ";

/// One file of the examples.
struct Example {
    path: PathBuf,
    text: String,
}

/// The files of a directory below `examples/`, by name.
fn examples(directory: &str) -> Vec<Example> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(directory);
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
        .into_iter()
        .map(|path| Example {
            text: fs::read_to_string(&path).unwrap(),
            path,
        })
        .collect()
}

impl Example {
    fn objects(&self) -> Vec<Value> {
        self.text
            .split("\n---\n")
            .map(|document| serde_saphyr::from_str(document).unwrap())
            .collect()
    }

    /// What the file tells its reader to type.
    fn commands(&self) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix(PROMPT))
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Whether what it logs in with is part of what plays Vault.
    fn is_for_this_vault(&self) -> bool {
        const NOT_IN_OPENBAO: [&str; 3] = ["aws", "azure", "gcp"];
        let name = self.path.file_stem().and_then(|name| name.to_str());
        !NOT_IN_OPENBAO.iter().any(|method| {
            name == Some(method) && VaultKind::OpenBao.lacks(&format!("the auth method {method}"))
        })
    }
}

/// A stage without the connection and the login that every other test uses: the quickstart brings its own.
async fn stage() -> Stage {
    let stage = Stage::own().await;
    kubectl(
        &stage,
        &[
            "delete",
            "clustervaultauth/default",
            "clustervaultconnection/main",
        ],
    )
    .await;
    stage
}

/// What kubectl says to the arguments; it must succeed.
async fn kubectl(stage: &Stage, arguments: &[&str]) -> String {
    let output = stage.kubectl(arguments).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "kubectl {}: {}{}",
        arguments.join(" "),
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// `object` as the apiserver has it.
async fn live(client: &Client, object: &Value) -> Value {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (kind, name) = (text("/kind").unwrap(), text("/metadata/name").unwrap());
    let resource = ApiResource {
        group: GROUP.to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: text("/apiVersion").unwrap().to_owned(),
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    };
    let api: Api<DynamicObject> = match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    serde_json::to_value(api.get(name).await.unwrap()).unwrap()
}

/// Its kind and name, for messages.
fn name(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    format!("{:?} {:?}", text("/kind"), text("/metadata/name"))
}

fn is_ours(object: &Value) -> bool {
    let version = object.get("apiVersion").and_then(Value::as_str);
    version.is_some_and(|version| version.starts_with(GROUP))
}

#[tokio::test]
async fn every_example_is_read_back_as_it_was_applied() {
    let stage = stage().await;
    let client = stage.client().await.unwrap();
    let all: Vec<_> = examples("quickstart")
        .into_iter()
        .chain(examples("."))
        .collect();
    let apply = ["apply", "--server-side", "--validate=strict", "-f"];
    for example in &all {
        kubectl(&stage, &[&apply[..], &[example.path()]].concat()).await;
    }
    // Once the operator has had a look at everything it has written whatever it writes.
    for object in all.iter().flat_map(Example::objects).filter(is_ours) {
        eventually(SOON, "a look of the operator", async || {
            let live = live(&client, &object).await;
            (live.pointer("/status/observedGeneration") == Some(&1.into())).then_some(())
        })
        .await
        .unwrap();
        let live = live(&client, &object).await;
        assert_eq!(live["spec"], object["spec"], "{}", name(&object));
        assert_eq!(live["metadata"]["generation"], 1, "{}", name(&object));
    }
    for example in &all {
        kubectl(&stage, &["diff", "--server-side", "-f", example.path()]).await;
        let before = versions(&stage, example).await;
        kubectl(&stage, &[&apply[..], &[example.path()]].concat()).await;
        assert_eq!(
            versions(&stage, example).await,
            before,
            "{}",
            example.path()
        );
    }
}

/// What changes with every change of a spec.
async fn versions(stage: &Stage, example: &Example) -> String {
    let path = "jsonpath={range .items[*]}{.metadata.name}={.metadata.generation} {end}{.metadata.generation}";
    kubectl(stage, &["get", "-f", example.path(), "-o", path]).await
}

#[test]
fn the_pages_about_sources_show_the_examples() {
    let all: String = examples(".")
        .into_iter()
        .map(|example| example.text)
        .collect();
    let pages = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/sources");
    let mut shown = 0;
    for page in fs::read_dir(pages).unwrap() {
        let page = page.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            assert!(all.contains(block), "{}: {block}", page.display());
            shown += 1;
        }
    }
    assert!(shown >= 3, "{shown}");
}

#[tokio::test]
async fn every_example_does_what_it_says() {
    let stage = stage().await;
    let client = stage.client().await.unwrap();
    set_up_vault(&stage).await;
    let apiserver = format!("https://{}/openid", stage.apiserver_socket().unwrap());
    let addresses = [
        (HTTPS, stage.vault_tls_address()),
        (HTTP, stage.vault_address()),
        (APISERVER, apiserver),
        (DIRECTORY, stage.ldap().await.unwrap().url()),
    ];
    let here = |text: &str| {
        let mut text = text.to_owned();
        for (theirs, ours) in &addresses {
            text = text.replace(theirs, ours);
        }
        text
    };
    let directory = stage.ldap().await.unwrap();
    directory.add_user("mailer", "before").await.unwrap();
    let postgres = stage.postgres().await.unwrap();
    postgres.query("CREATE ROLE checkout LOGIN").await.unwrap();
    let environment = [
        ("PGADDRESS", postgres.address()),
        ("PGPASSWORD", postgres.credentials().1.to_owned()),
        ("LDAP_PASSWORD", directory.manager().1.to_owned()),
    ];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut all = examples("quickstart");
    all.extend(examples(".").into_iter().filter(Example::is_for_this_vault));
    for example in &all {
        for command in example.commands() {
            shell(&stage, &here(command), &environment).await;
        }
        stage.apply_yaml(&here(&example.text)).await.unwrap();
    }
    become_ready(&client, &all).await;
    hold_the_keys_they_say(&stage).await;
}

/// Waits until every object of the examples says what it shall say.
async fn become_ready(client: &Client, examples: &[Example]) {
    for object in examples.iter().flat_map(Example::objects).filter(is_ours) {
        let reason = expected(&object);
        eventually(SOON, &format!("{reason}: {}", name(&object)), async || {
            let ready = ready(&live(client, &object).await);
            let found = ready.get("reason").and_then(Value::as_str);
            if found == Some(reason) {
                Ok(())
            } else {
                Err(ready.to_string())
            }
        })
        .await
        .unwrap();
    }
}

/// Looks into the Secrets whose keys are not simply those in Vault.
async fn hold_the_keys_they_say(stage: &Stage) {
    let keys = [
        (
            "backends",
            "MAIL_PASSWORD MAIL_USER mail.host search.key search.url",
        ),
        ("checkout-login", "DB_PASSWORD DB_USER"),
        ("flags", "eu-flag-beta_on flag-search_on"),
        ("kv-v1-and-pinned-version", "key password user"),
        ("reports", "DB_PASSWORD DB_USER"),
        ("settings", "DB_PASSWORD DB_USER theme"),
        ("static-role-ldap", "dn password username"),
        (
            "web-tls",
            "ca.crt keystore.p12 tls.crt tls.key truststore.p12",
        ),
    ];
    for (secret, expected) in keys {
        let template = "go-template={{range $key, $value := .data}}{{$key}} {{end}}";
        let found = kubectl(
            stage,
            &["-n", "shop", "get", "secret", secret, "-o", template],
        )
        .await;
        assert_eq!(found.trim(), expected, "{secret}");
    }
    let pinned = "jsonpath={.data.key}";
    let get = [
        "-n",
        "shop",
        "get",
        "secret",
        "kv-v1-and-pinned-version",
        "-o",
        pinned,
    ];
    assert_eq!(kubectl(stage, &get).await, "Zmlyc3Q=", "first");
}

/// The reason of the condition Ready, once all is well.
fn expected(object: &Value) -> &'static str {
    let suspended = object.pointer("/spec/suspend").and_then(Value::as_bool);
    match (object.get("kind").and_then(Value::as_str), suspended) {
        (_, Some(true)) => "Suspended",
        (Some("VaultSecret"), _) => "InStep",
        (Some("VaultConnection" | "ClusterVaultConnection"), _) => "Reachable",
        _ => "Accepted",
    }
}

fn ready(object: &Value) -> Value {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.get("type").is_some_and(|kind| kind == "Ready"));
    ready.cloned().unwrap_or_default()
}

/// Runs the quickstart's script on a Vault that has nothing of what it sets up.
async fn set_up_vault(stage: &Stage) {
    let vault = stage.vault();
    vault.delete("sys/auth/kubernetes").await.unwrap();
    vault.delete("sys/mounts/secret").await.unwrap();
    let authority = kubectl(
        stage,
        &[
            "get",
            "configmap",
            "kube-root-ca.crt",
            "-o",
            r"jsonpath={.data.ca\.crt}",
        ],
    )
    .await;
    let file = stage.directory().join("apiserver-ca.crt");
    fs::write(&file, authority).unwrap();
    let client = stage.vault_authority().client("checkout").unwrap();
    for (name, pem) in [
        ("ca.crt", stage.vault_ca_pem()),
        ("client-ca.crt", stage.vault_ca_pem()),
        ("client.crt", client.certificate),
        ("client.key", client.key),
    ] {
        fs::write(stage.directory().join(name), pem).unwrap();
    }
    let host = format!("https://{}", stage.apiserver_socket().unwrap());
    let token = stage
        .service_account_token("vault", "vault", &[])
        .await
        .unwrap();
    let environment = [
        ("KUBERNETES_HOST", host.as_str()),
        ("KUBERNETES_CA_FILE", file.to_str().unwrap()),
        ("REVIEWER_TOKEN", &token),
    ];
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/quickstart/vault-setup.sh"
    );
    // It says that it may be run again.
    for _ in 0..2 {
        shell(stage, script, &environment).await;
    }
}

/// Types `command` as an administrator of the cluster and of Vault would.
async fn shell(stage: &Stage, command: &str, environment: &[(&str, &str)]) {
    let [kubectl, vault] = [Tool::Kubectl, Tool::Vault]
        .map(|tool| tool.locate().unwrap().parent().unwrap().to_owned());
    let path = std::env::var_os("PATH").unwrap();
    let path = [kubectl, vault]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let output = tokio::process::Command::new("sh")
        .args(["-c", command])
        .current_dir(stage.directory())
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("HOME", stage.directory())
        .env("KUBECONFIG", stage.kubeconfig())
        .env("VAULT_ADDR", stage.vault_address())
        .env("VAULT_TOKEN", stage.vault().token())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
