//! Effects: processes, network — the operator as a local process, with everything a test wants to know about it.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use crate::{
    bed::{cluster::OPERATOR_NAMESPACE, directory::Directory, ports},
    error::{BedError, chain},
    eventually::eventually,
    process::{Launch, Process, ProcessError},
};

/// How long a terminated operator may take before it is killed; longer than any promise about it.
const GRACE: Duration = Duration::from_mins(1);

/// How to start an operator.
#[derive(Debug, Clone, Default)]
pub struct OperatorOptions {
    /// The `lockstep` binary.
    pub binary: PathBuf,
    /// What is added to `run --admin-address … --namespace …`.
    pub args: Vec<String>,
    /// What is added to the environment.
    pub env: Vec<(String, String)>,
    /// Which kubeconfig it uses; the admin's when none is given.
    pub kubeconfig: Option<PathBuf>,
}

/// A running operator, killed when it is dropped.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    admin_url: String,
}

impl Operator {
    pub(crate) fn start(
        directory: &Directory,
        admin: &Path,
        options: &OperatorOptions,
    ) -> Result<Self, BedError> {
        let OperatorOptions {
            binary,
            args,
            env,
            kubeconfig,
        } = options;
        let [port] = ports::free().map_err(BedError::Prepare)?;
        let address = format!("127.0.0.1:{port}");
        let mut arguments: Vec<OsString> = [
            "run",
            "--admin-address",
            &address,
            "--namespace",
            OPERATOR_NAMESPACE,
        ]
        .map(OsString::from)
        .into();
        arguments.extend(args.iter().map(OsString::from));
        let kubeconfig = kubeconfig.clone().unwrap_or_else(|| admin.to_owned());
        let mut environment = vec![("KUBECONFIG".to_owned(), kubeconfig.into_os_string())];
        environment.extend(env.iter().map(|(name, value)| (name.clone(), value.into())));
        let launch = Launch {
            name: "operator",
            program: binary.clone(),
            arguments,
            environment,
            user: None,
            directory: directory.path().to_owned(),
            // The port tells several operators of one bed apart.
            log: directory.join(format!("operator-{port}.log")),
        };
        Ok(Self {
            process: launch.start()?,
            admin_url: format!("http://{address}"),
        })
    }

    /// Where its admin server listens.
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// What it wrote so far.
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until `/readyz` says so; its last words come with the error.
    pub async fn wait_ready(&self, patience: Duration) -> Result<(), BedError> {
        let waited = eventually(patience, "a ready operator", async || {
            match self.process.exit_status() {
                Some(status) => Ok(Err(format!("it ended with {status}"))),
                None => self
                    .get("/readyz")
                    .await
                    .map(Ok)
                    .map_err(|error| chain(&error)),
            }
        })
        .await;
        let reason = match waited {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(ended)) => ended,
            Err(not_yet) => not_yet.to_string(),
        };
        Err(BedError::NotReady {
            name: self.process.name(),
            reason,
            log: self.process.log_tail(),
        })
    }

    /// Its metrics in text form.
    pub async fn metrics(&self) -> Result<String, BedError> {
        self.get("/metrics").await
    }

    /// Any page of its admin server.
    pub async fn get(&self, path: &str) -> Result<String, BedError> {
        let ask = async {
            let http = reqwest::Client::builder()
                .timeout(Duration::from_secs(5))
                .tls_certs_only([])
                .build()?;
            let response = http
                .get(format!("{}{path}", self.admin_url))
                .send()
                .await?
                .error_for_status()?;
            response.text().await
        };
        ask.await.map_err(|source| BedError::Operator {
            path: path.to_owned(),
            source,
        })
    }

    /// Its resident memory in KiB.
    pub fn rss_kib(&self) -> Result<u64, BedError> {
        let text = self.proc_file("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let figure = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        figure.ok_or(BedError::Shape("VmRSS"))
    }

    /// The processor time it has used, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64, BedError> {
        let text = self.proc_file("stat")?;
        // The name, which may hold spaces, is in parentheses; user and system time are fields 14 and 15.
        let fields = text
            .rsplit_once(')')
            .map(|(_, fields)| fields)
            .unwrap_or_default();
        let ticks: Vec<u32> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|tick| tick.parse().ok())
            .collect();
        let [user, system] = ticks.as_slice() else {
            return Err(BedError::Shape("the processor time"));
        };
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
        Ok(f64::from(user + system) / f64::from(per_second))
    }

    /// How it ended, if it did.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// Kills it (`SIGKILL`): it can do nothing more.
    pub fn kill(&self) -> Result<(), ProcessError> {
        self.process.kill()
    }

    /// Asks it to end (`SIGTERM`); returns how it ended and after how long. Blocks until then.
    pub fn terminate(&self) -> Result<(ExitStatus, Duration), ProcessError> {
        self.process.terminate(GRACE)
    }

    /// Stops it in its tracks.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.process.pause()
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.process.resume()
    }

    fn proc_file(&self, name: &str) -> Result<String, BedError> {
        let path = PathBuf::from(format!("/proc/{}/{name}", self.process.id()));
        fs::read_to_string(&path).map_err(|source: io::Error| BedError::File { path, source })
    }
}
