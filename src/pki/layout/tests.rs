//! Effects: programs that read key stores, in the test that is run by hand.

use std::{io::Write as _, path::Path, process::Command, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    time_provider::TimeProvider,
};

use super::*;
use crate::{
    api::pki::KeyType,
    pki::{
        key::PrivateKey,
        testing::{Authority, fixed_key, one_name},
    },
};

const PASSWORD: &str = "pass word-~";

/// Of `key`, or else of the key that is always the same.
fn bundle(key: Option<PrivateKey>) -> Bundle {
    let key = key.unwrap_or_else(fixed_key);
    let answer = Authority::new().certify_key(&key, &one_name());
    Bundle::check(&answer, Some(key), &one_name(), None).unwrap()
}

fn all(password: &str) -> Keystores {
    Keystores {
        pkcs12: Some(Sensitive::new(password)),
        jks: Some(Sensitive::new(password)),
    }
}

#[derive(Debug)]
struct January2030;

impl TimeProvider for January2030 {
    fn current_time(&self) -> Option<UnixTime> {
        let at: Timestamp = "2030-01-15T00:00:00Z".parse().unwrap();
        let seconds = u64::try_from(at.as_second()).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// A server with `tls.crt` and `tls.key`, and a client that trusts `ca.crt` alone, greet each other.
fn handshake(data: &BTreeMap<String, Sensitive>, host: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(default_provider());
    let chain = CertificateDer::pem_slice_iter(data["tls.crt"].expose())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(data["tls.key"].expose()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(data["ca.crt"].expose()) {
        roots.add(root.unwrap())?;
    }
    let client = ClientConfig::builder_with_details(provider, Arc::new(January2030))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_client_that_trusts_the_ca_accepts_a_server_with_the_certificate() {
    for kind in KeyType::ALL {
        let key = PrivateKey::generate(kind).unwrap();
        let data = layout(&bundle(Some(key)), &Keystores::default()).unwrap();
        assert_eq!(
            data.keys().collect::<Vec<_>>(),
            ["ca.crt", "tls.crt", "tls.key"]
        );
        handshake(&data, "a.example.com").unwrap();
        handshake(&data, "b.example.com").unwrap_err();
    }
}

#[test]
fn without_the_intermediate_the_client_would_refuse() {
    let mut data = layout(&bundle(None), &Keystores::default()).unwrap();
    let chain = data["tls.crt"].expose_text().unwrap();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    let leaf = chain.split_inclusive("-----END CERTIFICATE-----\n").next();
    data.insert("tls.crt".into(), Sensitive::new(leaf.unwrap()));
    handshake(&data, "a.example.com").unwrap_err();
}

#[test]
fn the_same_certificate_gives_the_same_bytes() {
    let data = layout(&bundle(None), &all(PASSWORD)).unwrap();
    assert_eq!(data, layout(&bundle(None), &all(PASSWORD)).unwrap());
    assert_eq!(
        data,
        layout(&bundle(None), &all(&format!("{PASSWORD}\n"))).unwrap()
    );
    let other = layout(&bundle(None), &all("another")).unwrap();
    for store in [
        "keystore.p12",
        "truststore.p12",
        "keystore.jks",
        "truststore.jks",
    ] {
        assert_ne!(data[store], other[store], "{store}");
    }
}

#[test]
fn what_the_secret_holds_can_be_laid_out_anew() {
    let plain = layout(&bundle(None), &Keystores::default()).unwrap();
    let again = Bundle::from_data(&plain).unwrap();
    assert_eq!(
        layout(&again, &all("changeit")).unwrap(),
        layout(&bundle(None), &all("changeit")).unwrap()
    );
    for missing in ["tls.crt", "tls.key", "ca.crt"] {
        let mut data = plain.clone();
        data.remove(missing);
        Bundle::from_data(&data).unwrap_err();
    }
}

#[test]
fn a_password_that_readers_refuse_is_refused() {
    for password in [
        &b"short"[..],
        b"short\n\n",
        b"",
        "pässword".as_bytes(),
        b"\xff\xff\xff\xff\xff\xff",
    ] {
        let password = Some(Sensitive::new(password));
        let pkcs12 = Keystores {
            pkcs12: password.clone(),
            jks: None,
        };
        let error = layout(&bundle(None), &pkcs12).unwrap_err();
        assert_eq!(error, LayoutError::Password("pkcs12"));
        let jks = Keystores {
            pkcs12: None,
            jks: password,
        };
        let error = layout(&bundle(None), &jks).unwrap_err();
        assert_eq!(error, LayoutError::Password("jks"));
    }
}

/// The stores as keytool 17 and OpenSSL 3.0 read them: see the test below, which is to be run when these change.
#[test]
fn the_stores_are_those_that_were_read_by_others() {
    let data = layout(&bundle(None), &all("changeit")).unwrap();
    let found: Vec<String> = data
        .iter()
        .filter(|(key, _)| key.contains("store"))
        .map(|(key, value)| {
            let digest = digest(&SHA256, value.expose());
            let hex: String = digest.as_ref()[..8]
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            format!("{key} {hex}")
        })
        .collect();
    assert_eq!(
        found,
        [
            "keystore.jks 74d4ae0178a9a330",
            "keystore.p12 d516cb831da4fe79",
            "truststore.jks 8882fd3fa1448a1f",
            "truststore.p12 fb11adf53218a73e",
        ]
    );
}

fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text} {error}"
    );
    text
}

#[test]
#[ignore = "needs keytool of a JDK, and openssl"]
#[expect(clippy::too_many_lines, reason = "one conversation with two programs")]
fn keytool_and_openssl_read_the_stores() {
    for kind in [None].into_iter().chain(KeyType::ALL.map(Some)) {
        let key = kind.map(|kind| PrivateKey::generate(kind).unwrap());
        let data = layout(&bundle(key), &all("changeit")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        for (name, value) in &data {
            let mut file = std::fs::File::create(at.join(name)).unwrap();
            file.write_all(value.expose()).unwrap();
        }
        let key = run("openssl", &["pkey", "-in", "tls.key"], at);
        for store in ["keystore.p12", "keystore.jks"] {
            let list = ["-list", "-v", "-storepass", "changeit", "-keystore", store];
            let found = run("keytool", &list, at);
            for expected in [
                "Alias name: certificate",
                "PrivateKeyEntry",
                "chain length: 2",
            ] {
                assert!(found.contains(expected), "{kind:?} {store}: {found}");
            }
            // Decrypts the key, and writes it anew.
            let import = [
                "-importkeystore",
                "-noprompt",
                "-srckeystore",
                store,
                "-srcstorepass",
                "changeit",
                "-destkeystore",
                "again.p12",
                "-deststorepass",
                "changeit",
                "-deststoretype",
                "PKCS12",
            ];
            run("keytool", &import, at);
            let again = [
                "pkcs12",
                "-in",
                "again.p12",
                "-nodes",
                "-nocerts",
                "-passin",
                "pass:changeit",
            ];
            assert!(
                run("openssl", &again, at).contains(&key),
                "{kind:?} {store}"
            );
            std::fs::remove_file(at.join("again.p12")).unwrap();
        }
        for store in ["truststore.p12", "truststore.jks"] {
            let list = ["-list", "-v", "-storepass", "changeit", "-keystore", store];
            let found = run("keytool", &list, at);
            for expected in ["Alias name: ca\n", "trustedCertEntry", "Owner: CN=Root"] {
                assert!(found.contains(expected), "{kind:?} {store}: {found}");
            }
        }
        let read = [
            "pkcs12",
            "-in",
            "keystore.p12",
            "-nodes",
            "-passin",
            "pass:changeit",
        ];
        let found = run("openssl", &read, at);
        assert!(found.contains(&key), "{kind:?}");
        assert_eq!(found.matches("BEGIN CERTIFICATE").count(), 2);
    }
}
