//! Effects: network — fetches one pinned file into memory and refuses anything but what was pinned.

use std::{thread, time::Duration};

use sha2::{Digest, Sha256};

use super::{PartError, cache::hex};

/// A file at an address, with the digest it must have.
pub(crate) struct Pinned {
    /// The full address.
    pub(crate) url: String,
    /// Its SHA-256 in hexadecimal digits.
    pub(crate) sha256: &'static str,
}

/// Generous: the largest file has 72 MB.
const TIMEOUT: Duration = Duration::from_mins(10);

impl Pinned {
    /// The bytes of the file.
    pub(crate) fn fetch(&self) -> Result<Vec<u8>, PartError> {
        // A thread of its own, because the caller may be inside an async runtime, where another one cannot block.
        let bytes = thread::scope(|scope| match scope.spawn(|| get(&self.url)).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })?;
        let found = hex(&Sha256::digest(&bytes));
        if found == self.sha256 {
            Ok(bytes)
        } else {
            Err(PartError::Checksum {
                url: self.url.clone(),
                found,
                pinned: self.sha256,
            })
        }
    }
}

fn get(url: &str) -> Result<Vec<u8>, PartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| PartError::Start {
            program: "a download".to_owned(),
            source,
        })?;
    runtime
        .block_on(async {
            let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
            let response = client.get(url).send().await?.error_for_status()?;
            Ok(response.bytes().await?.to_vec())
        })
        .map_err(|source| PartError::Download {
            url: url.to_owned(),
            source,
        })
}
