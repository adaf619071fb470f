//! Effects: Vault — the requests that one reading of a place takes.

use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};

use super::error::{VaultError, VaultErrorKind};
use super::find::{Walk, entry_name};
use super::mounts::{MountAt, Mounts, Question};
use super::path::{MountPath, PathError, SecretPath, VaultNamespace};
use super::place::{FindPlace, KvPlace, Place, StaticEngine, StaticRolePlace};
use super::request::{KvVersion, Request};
use super::response::{Content, Response, Rotation};
use super::session::Identity;
use super::sessions::Sessions;

/// Requests of one `find` that are under way at once: it shares the connection with everybody else.
const AT_ONCE: usize = 4;
/// What one `find` may bring into memory: four times what a Secret can hold.
const MOST_BYTES: usize = 4 * 1024 * 1024;

const KV: Question<KvVersion> = Question {
    what: "the KV version",
    field: "engineVersion",
    wanted: "'kv'",
    take: |mount| mount.kv,
};

const STATIC_ROLES: Question<StaticEngine> = Question {
    what: "the type of the engine",
    field: "engine",
    wanted: "'database' or 'ldap'",
    take: |mount| StaticEngine::named(&mount.engine),
};

/// Reads places.
#[derive(Debug)]
pub(super) struct Reader {
    sessions: Arc<Sessions>,
    mounts: Mounts,
}

impl Reader {
    pub(super) fn new(sessions: Arc<Sessions>) -> Self {
        Self {
            sessions,
            mounts: Mounts::default(),
        }
    }

    /// What is at `place`, and when Vault changes it, where that is known.
    pub(super) async fn read(
        &self,
        identity: &Identity,
        place: &Place,
    ) -> Result<(Content, Option<Rotation>), VaultError> {
        let kept = |content| (content, None);
        match place {
            Place::Kv(place) => self.kv(identity, place).await.map(kept),
            Place::Find(place) => self.find(identity, place).await.map(kept),
            Place::StaticRole(place) => self
                .static_role(identity, place)
                .await
                .map(|(content, rotation)| (content, Some(rotation))),
        }
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&self, now: Instant) {
        self.mounts.sweep(now);
    }

    fn at<'a>(
        &'a self,
        identity: &'a Identity,
        namespace: Option<&'a VaultNamespace>,
        mount: &'a MountPath,
    ) -> At<'a> {
        let mount = MountAt {
            identity,
            namespace,
            mount,
        };
        At {
            reader: self,
            mount,
        }
    }

    async fn kv(&self, identity: &Identity, place: &KvPlace) -> Result<Content, VaultError> {
        let KvPlace {
            namespace,
            mount,
            path,
            engine,
            version,
        } = place;
        let at = self.at(identity, namespace.as_ref(), mount);
        let kv = at.engine(*engine, &KV).await?;
        if kv == KvVersion::V1 && version.is_some() {
            return Err(at.keeps_no_versions(path));
        }
        let result = at.secret(kv, path, *version).await;
        at.checked(result, *engine, kv, Some(path)).await
    }

    async fn find(&self, identity: &Identity, place: &FindPlace) -> Result<Content, VaultError> {
        let at = self.at(identity, place.namespace.as_ref(), &place.mount);
        let kv = at.engine(place.engine, &KV).await?;
        let paths = at.listed(kv, place).await;
        let folder = place.folder.as_ref();
        let paths = at.checked(paths, place.engine, kv, folder).await?;
        at.secrets(kv, place, paths).await
    }

    async fn static_role(
        &self,
        identity: &Identity,
        place: &StaticRolePlace,
    ) -> Result<(Content, Rotation), VaultError> {
        let StaticRolePlace {
            namespace,
            mount,
            role,
            engine,
        } = place;
        let at = self.at(identity, namespace.as_ref(), mount);
        let known = at.engine(*engine, &STATIC_ROLES).await?;
        let answer = at.send(Request::static_role(mount, known, role)).await;
        let result = answer.and_then(|answer| answer.static_role());
        match result {
            // Vault answers 400 here.
            Err(error) if error.detail.starts_with("unknown role") => Err(VaultError {
                kind: VaultErrorKind::NotFound,
                ..error
            }),
            Err(error) if engine.is_some() && may_be_wrong_engine(&error) => {
                let found = at.ask(&STATIC_ROLES).await;
                Err(match found {
                    Ok(found) if found != known => error.explained(&format!(
                        "the engine mounted at {mount} is '{}'; correct engine or leave it out",
                        found.as_str()
                    )),
                    // Not of either type: that says it all.
                    Err(other) if other.kind == VaultErrorKind::Invalid => other,
                    _ => error,
                })
            }
            Err(error) => {
                at.doubt(&error);
                Err(error)
            }
            Ok(read) => Ok(read),
        }
    }
}

/// A mount, and who reads there.
#[derive(Clone, Copy)]
struct At<'a> {
    reader: &'a Reader,
    mount: MountAt<'a>,
}

impl<'a> At<'a> {
    fn path(self) -> &'a MountPath {
        self.mount.mount
    }

    async fn send(self, request: Request) -> Result<Response, VaultError> {
        let request = request.in_namespace(self.mount.namespace.cloned());
        let sessions = &self.reader.sessions;
        sessions.send(self.mount.identity, &request).await
    }

    /// What the user said of the engine, else what Vault says.
    async fn engine<T: Copy>(
        self,
        said: Option<T>,
        question: &Question<T>,
    ) -> Result<T, VaultError> {
        match said {
            Some(said) => Ok(said),
            None => self.ask(question).await,
        }
    }

    async fn ask<T>(self, question: &Question<T>) -> Result<T, VaultError> {
        let Reader { sessions, mounts } = self.reader;
        mounts.ask(sessions, self.mount, question).await
    }

    /// Asks again what is mounted here, if the failure may come from another engine than was known.
    fn doubt(self, error: &VaultError) {
        if !error.concerns_login()
            && matches!(
                error.kind,
                VaultErrorKind::NotFound | VaultErrorKind::Invalid
            )
        {
            self.reader.mounts.forget(self.mount);
        }
    }

    /// Explains a failure that comes from a wrong `engineVersion` or from a path as the API has it.
    async fn checked<T>(
        self,
        result: Result<T, VaultError>,
        said: Option<KvVersion>,
        used: KvVersion,
        path: Option<&SecretPath>,
    ) -> Result<T, VaultError> {
        let error = match result {
            Err(error) if may_be_wrong_engine(&error) => error,
            other => return other,
        };
        if said.is_none() {
            self.doubt(&error);
        } else if let Ok(found) = self.ask(&KV).await
            && found != used
        {
            let (mount, found) = (self.path(), found.number());
            let why = format!(
                "mount {mount} is a version {found} engine: set engineVersion: {found}, or leave it out"
            );
            return Err(error.explained(&why));
        }
        Err(match path.and_then(|path| needless(path, used)) {
            None => error,
            Some(start) => error.explained(&format!(
                "leave out {start} at the start of path, it is added for you"
            )),
        })
    }

    async fn secret(
        self,
        kv: KvVersion,
        path: &SecretPath,
        version: Option<u64>,
    ) -> Result<Content, VaultError> {
        let request = match kv {
            KvVersion::V1 => Request::kv1_read(self.path(), path),
            KvVersion::V2 => Request::kv2_read(self.path(), path, version),
        };
        self.send(request).await?.kv(kv)
    }

    /// A version is wanted of an engine that has none. It may be upgraded, so it is asked about again.
    fn keeps_no_versions(self, path: &SecretPath) -> VaultError {
        let mount = self.path();
        self.reader.mounts.forget(self.mount);
        let why = format!(
            "mount {mount} is a version 1 engine, which keeps no versions: remove version, or name a mount of version 2"
        );
        VaultError::new(
            VaultErrorKind::Refused,
            &Request::kv1_read(mount, path),
            why,
        )
    }

    /// The paths of all secrets that match, relative to the folder of the place.
    async fn listed(self, kv: KvVersion, place: &FindPlace) -> Result<Vec<String>, VaultError> {
        let mut walk = Walk::new(place);
        while !walk.level().is_empty() {
            let lists = walk.level().to_vec().into_iter().map(|folder| async move {
                let names = self.names(kv, place, &folder).await;
                names.map(|names| (folder, names))
            });
            let lists = stream::iter(lists).buffered(AT_ONCE);
            let listed: Vec<_> = lists.try_collect().await?;
            walk.next(listed).map_err(|error| {
                let request = Request::kv_list(self.path(), kv, place.folder.as_ref());
                VaultError::new(VaultErrorKind::TooMany, &request, error.to_string())
            })?;
        }
        Ok(walk.secrets())
    }

    /// The names in a folder below that of the place. One that went meanwhile holds nothing.
    async fn names(
        self,
        kv: KvVersion,
        place: &FindPlace,
        folder: &str,
    ) -> Result<Vec<String>, VaultError> {
        let path = match folder.strip_suffix('/') {
            None => place.folder.clone(),
            Some(below) => Some(self.below(kv, place, below)?),
        };
        let request = Request::kv_list(self.path(), kv, path.as_ref());
        match self.send(request).await {
            Ok(answer) => answer.names(),
            Err(error) if error.kind == VaultErrorKind::NotFound && !folder.is_empty() => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads all of `paths` into one. One that went meanwhile is left out; any other failure ends it.
    async fn secrets(
        self,
        kv: KvVersion,
        place: &FindPlace,
        paths: Vec<String>,
    ) -> Result<Content, VaultError> {
        let reads = paths.into_iter().map(|path| async move {
            let whole = self.below(kv, place, &path)?;
            match self.secret(kv, &whole, None).await {
                Ok(content) => Ok(Some((path, content))),
                Err(error) if is_gone(&error) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let mut reads = stream::iter(reads).buffered(AT_ONCE);
        let mut all = Content {
            entries: std::collections::BTreeMap::new(),
            version: None,
            request_id: None,
        };
        let mut bytes = 0;
        while let Some(read) = reads.try_next().await? {
            let Some((path, content)) = read else {
                continue;
            };
            for (key, value) in content.entries {
                bytes += value.len();
                all.entries.insert(entry_name(&path, &key), value);
            }
            if bytes > MOST_BYTES {
                let request = Request::kv_list(self.path(), kv, place.folder.as_ref());
                let detail = format!(
                    "together they hold more than {MOST_BYTES} bytes; narrow path or match"
                );
                return Err(VaultError::new(VaultErrorKind::TooMany, &request, detail));
            }
        }
        Ok(all)
    }

    /// A path that Vault listed, from the mount on.
    fn below(
        self,
        kv: KvVersion,
        place: &FindPlace,
        relative: &str,
    ) -> Result<SecretPath, VaultError> {
        let path = match &place.folder {
            None => SecretPath::parse(relative),
            Some(folder) => SecretPath::parse(&format!("{folder}/{relative}")),
        };
        path.map_err(|error: PathError| {
            let request = Request::kv_list(self.path(), kv, place.folder.as_ref());
            let detail =
                format!("Vault lists what cannot be read: {error}; leave it out with match");
            VaultError::new(VaultErrorKind::Invalid, &request, detail)
        })
    }
}

/// Whether the failure may come from an engine that is another than was thought: a request that it does not know
/// is answered like one for what is not there, or not allowed.
fn may_be_wrong_engine(error: &VaultError) -> bool {
    !error.concerns_login()
        && matches!(
            error.kind,
            VaultErrorKind::NotFound | VaultErrorKind::Invalid | VaultErrorKind::Denied
        )
}

fn is_gone(error: &VaultError) -> bool {
    !error.concerns_login()
        && matches!(
            error.kind,
            VaultErrorKind::NotFound | VaultErrorKind::Deleted
        )
}

/// The part of a path that the API of version 2 has and people do not write.
fn needless(path: &SecretPath, kv: KvVersion) -> Option<&'static str> {
    let starts = ["data/", "metadata/"].into_iter();
    let path = format!("{path}/");
    (kv == KvVersion::V2)
        .then(|| starts.into_iter().find(|start| path.starts_with(start)))
        .flatten()
}
