//! Effects: stdout, files and the process — the sub-commands.

pub mod args;
mod crds;
mod run;
pub mod settings;

use std::io::Write as _;
use std::path::PathBuf;

use self::args::{Args, Command};
use self::settings::SettingsError;
use crate::runtime::RunError;
use crate::telemetry::log::LogError;

/// Why a sub-command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A flag has a value that cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The log could not be set up.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The system gave no random bytes.
    #[error("read random bytes")]
    Random(#[source] getrandom::Error),
    /// The threads could not be started.
    #[error("start the async runtime")]
    StartRuntime(#[source] std::io::Error),
    /// The operator ended by itself.
    #[error("the operator stopped")]
    Run(#[source] RunError),
    /// Not everything was revoked.
    #[error(
        "{count} leases or certificates are left; mend what is told above and run it again, or let them end with their TTL"
    )]
    Left {
        /// How many.
        count: usize,
    },
    /// A definition could not be written as YAML.
    #[error("write the definition of {name} as YAML")]
    RenderCrd {
        /// The name of the definition.
        name: String,
        /// What is wrong with it.
        source: serde_saphyr::SerializeError,
    },
    /// A file could not be written.
    #[error("write {}", path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Stdout is closed or full.
    #[error("write to stdout")]
    Print(#[source] std::io::Error),
}

/// Does what `args` says, to its end.
pub fn dispatch(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Run(args) => run::run(args),
        Command::Uninstall(args) => run::uninstall(args),
        Command::Crds(args) => crds::crds(&args),
        Command::Version => print(concat!("lockstep ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(CliError::Print)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn help(subcommand: Option<&str>) -> String {
        let mut command = Args::command().term_width(100);
        command.build();
        let shown = match subcommand {
            None => &mut command,
            Some(name) => command.find_subcommand_mut(name).unwrap(),
        };
        shown.render_long_help().to_string()
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_version_is_told_as_people_ask_for_it() {
        let version = concat!("lockstep ", env!("CARGO_PKG_VERSION"), "\n");
        for flag in ["--version", "-V"] {
            let told = Args::command().try_get_matches_from(["lockstep", flag]);
            assert_eq!(told.unwrap_err().to_string(), version);
        }
    }

    #[test]
    fn help_is_written_for_people() {
        insta::assert_snapshot!("help", help(None));
        for name in ["run", "uninstall", "crds", "version"] {
            insta::assert_snapshot!(format!("help-{name}"), help(Some(name)));
        }
    }
}
