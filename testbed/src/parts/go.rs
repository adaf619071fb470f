//! Effects: processes, files — builds a part from its tools-only Go module.

use std::{
    env::consts,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{PartError, cache, progress::Progress, toolchain};

/// How a part is built from the module in `parts/<name>`.
pub(crate) struct GoModule {
    /// The name of the part and of its directory.
    pub(crate) name: &'static str,
    /// Each package and the name of the binary it becomes.
    pub(crate) packages: &'static [(&'static str, &'static str)],
    /// The module whose version is linked into Kubernetes binaries, which otherwise call themselves v0.0.0-master.
    pub(crate) stamped: Option<&'static str>,
    /// A module, and a folder of it whose YAML files are kept beside the binaries.
    pub(crate) files: Option<(&'static str, &'static str)>,
    /// How long a cold build takes, told to whoever waits for it.
    pub(crate) patience: &'static str,
}

impl GoModule {
    /// The directory of the binaries, built when the cache does not have them.
    pub(crate) fn ensure(&self) -> Result<PathBuf, PartError> {
        let module = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("parts")
            .join(self.name);
        let pins = read(&module.join("go.mod"))?;
        let sums = read(&module.join("go.sum"))?;
        let flags = self.linker_flags(&module, &pins)?;
        let packages = format!("{:?}", self.packages);
        let mut inputs = vec![
            pins.as_bytes(),
            sums.as_bytes(),
            flags.as_bytes(),
            packages.as_bytes(),
            consts::ARCH.as_bytes(),
        ];
        inputs.extend(self.files.map(|(_, folder)| folder.as_bytes()));
        let key = cache::key(&inputs);
        cache::entry(self.name, &key, |target| {
            self.build(&module, &flags, target)
        })
    }

    fn linker_flags(&self, module: &Path, pins: &str) -> Result<String, PartError> {
        let Some(stamped) = self.stamped else {
            return Ok("-s -w".to_owned());
        };
        let unpinned = || PartError::Unpinned {
            module: stamped,
            path: module.join("go.mod"),
        };
        let version = required_version(pins, stamped).ok_or_else(unpinned)?;
        let mut numbers = version.trim_start_matches('v').split('.');
        let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
            return Err(unpinned());
        };
        let package = "k8s.io/component-base/version";
        Ok(format!(
            "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
        ))
    }

    fn build(&self, module: &Path, flags: &str, target: &Path) -> Result<(), PartError> {
        let go = toolchain::go()?;
        let _progress = Progress::start(self.name, self.patience);
        let mut command = Command::new(&go);
        command
            .current_dir(module)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-buildvcs=false")
            .env("GOTOOLCHAIN", "local")
            .args(["build", "-trimpath", "-ldflags", flags, "-o"]);
        match self.packages {
            // Go would name the binary after the last element of the path, which may be "v3".
            [(_, binary)] => command.arg(target.join(binary)),
            _ => command.arg(target),
        };
        command.args(self.packages.iter().map(|(package, _)| package));
        let output = command.output().map_err(|source| PartError::Start {
            program: go.display().to_string(),
            source,
        })?;
        self.checked(&output)?;
        self.copy_files(&go, module, target)
    }

    fn copy_files(&self, go: &Path, module: &Path, target: &Path) -> Result<(), PartError> {
        let Some((name, folder)) = self.files else {
            return Ok(());
        };
        let output = Command::new(go)
            .current_dir(module)
            .env("GOTOOLCHAIN", "local")
            .args(["list", "-m", "-f", "{{.Dir}}", name])
            .output()
            .map_err(|source| PartError::Start {
                program: go.display().to_string(),
                source,
            })?;
        self.checked(&output)?;
        let unpacked = String::from_utf8_lossy(&output.stdout);
        let folder = Path::new(unpacked.trim()).join(folder);
        for entry in fs::read_dir(&folder).map_err(PartError::file("read", &folder))? {
            let entry = entry.map_err(PartError::file("read", &folder))?;
            let path = entry.path();
            if path.extension().is_some_and(|kind| kind == "yaml") {
                // Written anew: what is in the module cache is read-only.
                let text = read(&path)?;
                let copy = target.join(entry.file_name());
                fs::write(&copy, text).map_err(PartError::file("write", &copy))?;
            }
        }
        Ok(())
    }

    fn checked(&self, output: &Output) -> Result<(), PartError> {
        if output.status.success() {
            return Ok(());
        }
        Err(PartError::Build {
            part: self.name,
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

fn read(path: &Path) -> Result<String, PartError> {
    fs::read_to_string(path).map_err(PartError::file("read", path))
}

/// The version a `go.mod` requires of `module`.
fn required_version<'a>(pins: &'a str, module: &str) -> Option<&'a str> {
    pins.lines().find_map(|line| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word == "require");
        (words.next() == Some(module))
            .then(|| words.next())
            .flatten()
            .filter(|version| version.starts_with('v'))
    })
}

#[cfg(test)]
mod tests {
    use super::required_version;

    #[test]
    fn a_version_is_read_from_a_require_line_and_not_from_a_replacement() {
        let pins = "replace (\n\tk8s.io/a => k8s.io/a v0.1.0\n)\nrequire (\n\tk8s.io/a v0.2.0 // indirect\n)\nrequire k8s.io/b v1.2.3\n";
        assert_eq!(required_version(pins, "k8s.io/a"), Some("v0.2.0"));
        assert_eq!(required_version(pins, "k8s.io/b"), Some("v1.2.3"));
        assert_eq!(required_version(pins, "k8s.io/c"), None);
    }
}
