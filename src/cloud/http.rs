//! Effects: HTTP to the services of clouds, once per login.

use std::{fmt, time::Duration};

use http::header;
use zeroize::Zeroizing;

use super::{endpoints::Endpoints, exchange::Exchange};
use crate::{sensitive::Sensitive, vault::identity::CredentialError};

/// Time for one request, from connecting to the last byte.
const LIMIT: Duration = Duration::from_secs(10);
/// A service that does not take a connection in this time is away.
const CONNECT: Duration = Duration::from_secs(5);
/// Largest answer that is read; a token has some thousand bytes.
const MAX_BODY: usize = 256 * 1024;

/// The way to the services of clouds.
pub struct Clouds {
    http: reqwest::Client,
    /// Where they are.
    pub endpoints: Endpoints,
}

impl fmt::Debug for Clouds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clouds")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Clouds {
    /// Prepares; nothing is sent. Fails when the platform's certificates cannot be used.
    pub fn new(endpoints: Endpoints) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            // A redirect would carry the token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("lockstep/", env!("CARGO_PKG_VERSION")))
            .timeout(LIMIT)
            .connect_timeout(CONNECT)
            // Logins are hours apart.
            .pool_max_idle_per_host(0)
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .build()?;
        Ok(Self { http, endpoints })
    }

    /// Sends `exchange` once, and returns what `read` finds in the answer; `lacking` names it for people.
    pub async fn ask<T>(
        &self,
        exchange: &Exchange,
        lacking: &str,
        read: impl FnOnce(&Sensitive) -> Option<T>,
    ) -> Result<T, CredentialError> {
        let mut call = self
            .http
            .request(exchange.method.clone(), exchange.url.clone());
        for (name, value) in &exchange.headers {
            call = call.header(*name, sensitive_header(value, exchange)?);
        }
        if let Some((content_type, body)) = &exchange.body {
            let owned = Zeroizing::new(body.expose().to_vec());
            call = call
                .header(header::CONTENT_TYPE, *content_type)
                .body(tokio_util::bytes::Bytes::from_owner(owned));
        }
        let mut answer = call
            .send()
            .await
            .map_err(|error| unreachable(exchange, error))?;
        let mut body = Zeroizing::new(Vec::with_capacity(16 * 1024));
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| unreachable(exchange, error))?
        {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(exchange.misunderstood("an end"));
            }
            body.extend_from_slice(&chunk);
        }
        if !answer.status().is_success() {
            return Err(exchange.refused(answer.status().as_u16(), &body));
        }
        let body = Sensitive::new(std::mem::take(&mut *body));
        read(&body).ok_or_else(|| exchange.misunderstood(lacking))
    }
}

fn sensitive_header(
    value: &Sensitive,
    exchange: &Exchange,
) -> Result<header::HeaderValue, CredentialError> {
    let mut value = header::HeaderValue::from_bytes(value.expose())
        .map_err(|_| exchange.misunderstood("a token that a header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(exchange: &Exchange, error: reqwest::Error) -> CredentialError {
    let error = error.without_url();
    if error.is_timeout() {
        return exchange.unreachable("no answer in time");
    }
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    let cause = causes
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string);
    exchange.unreachable(&cause)
}
