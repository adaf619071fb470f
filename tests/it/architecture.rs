//! What the source says about itself is true, and what is written down twice is the same in both places.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lockstep::telemetry::events::EventReason;
use lockstep_testbed::parts::Tool;

/// The longest file of code; what is longer has two subjects.
const LONGEST: usize = 450;

/// What a file that only computes does not contain.
const IMPURE: [&str; 9] = [
    "async fn",
    "tokio::",
    "kube::Client",
    "Timestamp::now",
    "Instant::now",
    "SystemTime",
    "std::env",
    "std::fs",
    "tracing::",
];

/// The files that look into a `Sensitive`. Whoever adds one says here what for.
const EXPOSING: [(&str, &str); 12] = [
    ("src/cloud/http.rs", "sends tokens to clouds"),
    ("src/hash_key.rs", "stores the key of the rotation hash"),
    (
        "src/pki/certificate.rs",
        "reads certificates, which are public",
    ),
    ("src/pki/key.rs", "reads a private key that Vault made"),
    ("src/pki/layout.rs", "joins certificates, which are public"),
    ("src/revision.rs", "digests what a Secret holds"),
    (
        "src/session_store.rs",
        "stores tokens of Vault, where that is wanted",
    ),
    ("src/sync/credentials.rs", "trims the credential of a login"),
    ("src/sync/desired.rs", "puts values into the Secret"),
    (
        "src/vault/dial.rs",
        "hands our certificate and its key to TLS",
    ),
    ("src/vault/fingerprint.rs", "digests what was read"),
    ("src/vault/transport.rs", "sends tokens and logins"),
];

/// Where the words are defined that people meet in conditions and events.
const WORDS: [&str; 7] = [
    "src/status/condition.rs",
    "src/sync/refusal.rs",
    "src/vault/error.rs",
    "src/status/vault_secret.rs",
    "src/connection/status.rs",
    "src/auth.rs",
    "src/telemetry/events.rs",
];

/// Capitalised words in those files that are no reasons: the values of a condition, kinds, and actions of events.
const NO_REASONS: [&str; 11] = [
    "True",
    "False",
    "Unknown",
    "VaultAuth",
    "ClusterVaultAuth",
    "VaultConnection",
    "ClusterVaultConnection",
    "Read",
    "Resolve",
    "Apply",
    "Rollout",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path)
        .map_err(|error| format!("{}: {error}", path.display()))
        .unwrap()
}

/// The Rust files below `directory`, as paths from the root.
fn sources(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(directory)];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let path = path.strip_prefix(root()).unwrap();
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// What of a file is compiled into the product, without comments; nothing of files for tests.
fn code(path: &str) -> String {
    if is_for_tests(path) {
        return String::new();
    }
    let text = read(path);
    let product = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let lines = product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether the module is declared for tests only.
fn is_for_tests(path: &str) -> bool {
    let path = Path::new(path);
    let stem = path.file_stem().unwrap().to_string_lossy();
    let directory = path.parent().unwrap();
    let parents = [
        directory.join("mod.rs"),
        directory.join("lib.rs"),
        directory.with_extension("rs"),
    ];
    let mut parents = parents.iter().filter(|path| root().join(path).is_file());
    parents.any(|parent| {
        let text = read(parent);
        ["mod", "pub(crate) mod", "pub(super) mod"]
            .iter()
            .any(|form| text.contains(&format!("#[cfg(test)]\n{form} {stem};")))
    })
}

#[test]
fn every_file_says_first_whether_it_only_computes() {
    for path in sources("src") {
        if path == "src/lib.rs" {
            continue;
        }
        let text = read(&path);
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("//! Pure: ") || first.starts_with("//! Effects: "),
            "{path}: the first line says neither \"Pure:\" nor \"Effects:\": {first}"
        );
        if first.starts_with("//! Pure") {
            let code = code(&path);
            let found: Vec<_> = IMPURE.iter().filter(|word| code.contains(**word)).collect();
            assert!(found.is_empty(), "{path} is not pure: {found:?}");
        }
    }
}

#[test]
fn values_are_looked_into_in_few_files() {
    let found: Vec<String> = sources("src")
        .into_iter()
        .filter(|path| code(path).contains(".expose()"))
        .collect();
    let listed: Vec<&str> = EXPOSING.iter().map(|(path, _)| *path).collect();
    assert_eq!(found, listed);
}

#[test]
fn no_file_is_long() {
    for path in sources("src") {
        let lines = code(&path).lines().count();
        assert!(lines <= LONGEST, "{path} has {lines} lines of code");
    }
}

#[test]
fn the_manifests_are_the_chart_rendered() {
    let helm = Tool::Helm.locate().unwrap();
    let output = Command::new(helm)
        .args(["template", "lockstep", "charts/lockstep"])
        .args(["--namespace", "lockstep-system"])
        .current_dir(root())
        .output()
        .unwrap();
    let rendered = String::from_utf8(output.stdout).unwrap();
    assert!(
        rendered == read("config/lockstep.yaml"),
        "config/lockstep.yaml is not what CONTRIBUTING.md says makes it"
    );
}

#[test]
fn the_definitions_are_the_same_everywhere() {
    let fresh = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["crds", "--dir"])
        .arg(fresh.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let files = |directory: &Path| {
        let mut files: Vec<(String, String)> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let fresh = files(fresh.path());
    for directory in ["crds", "charts/lockstep/crds"] {
        assert!(
            files(&root().join(directory)) == fresh,
            "{directory} is not what `lockstep crds` prints"
        );
    }
}

#[test]
fn the_image_is_built_with_the_compiler_of_the_developers() {
    let value = |file: &str, key: &str| {
        let text = read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().trim_matches([' ', '=', '"']).to_owned()
    };
    assert_eq!(
        value("Dockerfile", "ARG RUST_VERSION"),
        value("rust-toolchain.toml", "channel")
    );
}

#[test]
fn every_word_of_a_condition_or_an_event_is_described() {
    let page = read("docs/conditions.md");
    let mut words: Vec<String> = WORDS.iter().flat_map(|path| words(&code(path))).collect();
    words.extend(EventReason::ALL.map(|reason| reason.as_str().to_owned()));
    words.sort();
    words.dedup();
    words.retain(|word| !NO_REASONS.contains(&word.as_str()));
    assert!(words.len() > 40, "{words:?}");
    let missing: Vec<_> = words
        .iter()
        .filter(|word| !page.contains(&format!("| `{word}` |")))
        .collect();
    assert!(missing.is_empty(), "docs/conditions.md lacks {missing:?}");
    for line in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let word = line.split('`').next().unwrap();
        assert!(
            words.iter().any(|known| known == word),
            "docs/conditions.md describes {word}, which is not used"
        );
    }
}

/// The string literals that are one capitalised word.
fn words(code: &str) -> Vec<String> {
    let literals = code.split('"').skip(1).step_by(2);
    let is_word = |text: &&str| {
        text.len() > 2
            && text.starts_with(|first: char| first.is_ascii_uppercase())
            && text.chars().all(|letter| letter.is_ascii_alphanumeric())
    };
    literals.filter(is_word).map(str::to_owned).collect()
}

/// Every example of a page about a login is one that is tried.
#[test]
fn the_pages_about_logins_show_examples_that_are_applied() {
    let files = |directory: &str| {
        let files = fs::read_dir(root().join(directory)).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths.filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    let examples = [files("examples"), files("examples/quickstart")].concat();
    let examples: Vec<_> = examples.iter().map(read).collect();
    for page in files("docs/logins") {
        let text = read(&page);
        let blocks = text.split("```yaml\n").skip(1);
        let blocks: Vec<_> = blocks
            .map(|rest| rest.split("```").next().unwrap())
            .collect();
        assert!(!blocks.is_empty(), "{} shows no example", page.display());
        for block in blocks {
            assert!(
                examples
                    .iter()
                    .any(|example| example.contains(block.trim_end())),
                "{} shows what is no example:\n{block}",
                page.display()
            );
        }
    }
}

/// Every line of the pages about credentials and restarts names the tests that show it, and these are there.
#[test]
fn what_is_said_about_credentials_and_restarts_is_shown_by_a_test() {
    let all = [sources("src"), sources("tests")].concat();
    let all: String = all.iter().map(read).collect();
    let pages = [read("docs/credentials.md"), read("docs/rollouts.md")];
    let rows = pages
        .iter()
        .flat_map(|page| page.lines())
        .filter(|line| line.starts_with("| "));
    let rows: Vec<_> = rows
        .filter(|row| !row.starts_with("| ---") && !row.starts_with("| when"))
        .collect();
    assert!(rows.len() > 40, "{}", rows.len());
    for row in rows {
        let shown_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let mut tests = shown_by.split('`').skip(1).step_by(2).peekable();
        assert!(tests.peek().is_some(), "no test shows this: {row}");
        for test in tests {
            let forms = [
                "#[test]\nfn",
                "#[tokio::test]\nasync fn",
                "#[test]\n    fn",
                "#[tokio::test(start_paused = true)]\n    async fn",
            ];
            let there = forms.map(|form| all.contains(&format!("{form} {test}(")));
            assert!(there.contains(&true), "there is no test called {test}");
        }
    }
}

#[test]
fn every_metric_is_described() {
    let page = read("docs/metrics.md");
    // An empty family is not encoded, but a snapshot has one sample of each.
    let text = read(
        "src/telemetry/snapshots/lockstep__telemetry__metrics__tests__every_family_has_help_and_a_unit_where_it_is_a_time.snap",
    );
    let families = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("# TYPE ")?;
        rest.split_once(' ')
    });
    let mut count = 0;
    for (name, kind) in families {
        count += 1;
        let name = match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        };
        assert!(
            page.contains(&format!("| `{name}` | {kind} |")),
            "docs/metrics.md lacks `{name}` ({kind})"
        );
    }
    let described = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(
        described, count,
        "docs/metrics.md describes what there is not"
    );
}
