//! Effects: stdout, files — `lockstep crds`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::args::CrdsArgs;
use super::{CliError, print};

/// Prints all definitions as one YAML stream, or writes each into `<dir>/<plural>.yaml`.
pub(super) fn crds(args: &CrdsArgs) -> Result<(), CliError> {
    for crd in crate::api::crds() {
        let text = yaml(&crd)?;
        match &args.dir {
            None => print(&format!("---\n{text}"))?,
            Some(dir) => {
                let path = dir.join(format!("{}.yaml", crd.spec.names.plural));
                std::fs::write(&path, text)
                    .map_err(|source| CliError::WriteFile { path, source })?;
            }
        }
    }
    Ok(())
}

fn yaml(crd: &CustomResourceDefinition) -> Result<String, CliError> {
    serde_saphyr::to_string(crd).map_err(|source| CliError::RenderCrd {
        name: crd.spec.names.plural.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_reads_back_unchanged() {
        for crd in crate::api::crds() {
            let back: CustomResourceDefinition =
                serde_saphyr::from_str(&yaml(&crd).unwrap()).unwrap();
            assert_eq!(back, crd);
        }
    }

    #[test]
    fn committed_definitions_are_up_to_date() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for dir in ["crds", "charts/lockstep/crds"] {
            for crd in crate::api::crds() {
                let path = root
                    .join(dir)
                    .join(format!("{}.yaml", crd.spec.names.plural));
                let committed = std::fs::read_to_string(&path).unwrap_or_default();
                let how = "see CONTRIBUTING.md for how to write it again";
                assert!(
                    committed == yaml(&crd).unwrap(),
                    "{} is out of date, {how}",
                    path.display()
                );
            }
        }
    }

    #[test]
    fn one_file_per_kind() {
        let dir = tempfile::tempdir().unwrap();
        crds(&CrdsArgs {
            dir: Some(dir.path().to_owned()),
        })
        .unwrap();
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, crate::api::crds().len());
        assert!(dir.path().join("vaultsecrets.yaml").exists());
    }
}
