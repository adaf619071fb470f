//! Pure: where the services of the clouds are.
//!
//! The public addresses are fixed, or follow from a checked region or cloud. Only whoever starts the
//! operator can name others: for private endpoints, and for emulators in tests.

use std::{collections::BTreeMap, str::FromStr};

use url::{Host, Url};

/// A service that a login asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// AWS Security Token Service.
    AwsSts,
    /// Google's Security Token Service.
    GcpSts,
    /// Google's IAM Service Account Credentials API.
    GcpIam,
    /// Microsoft Entra ID, formerly Azure Active Directory.
    AzureLogin,
    /// Azure's instance metadata service, on each machine at a link-local address.
    AzureMetadata,
}

impl Service {
    const ALL: [Self; 5] = [
        Self::AwsSts,
        Self::GcpSts,
        Self::GcpIam,
        Self::AzureLogin,
        Self::AzureMetadata,
    ];

    /// Its name on the command line.
    const fn name(self) -> &'static str {
        match self {
            Self::AwsSts => "aws-sts",
            Self::GcpSts => "gcp-sts",
            Self::GcpIam => "gcp-iam",
            Self::AzureLogin => "azure-login",
            Self::AzureMetadata => "azure-metadata",
        }
    }
}

/// Addresses that the operator was started with, each in place of the public ones of its service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints(BTreeMap<Service, Url>);

/// One address, as in `aws-sts=https://vpce-1.sts.eu-west-1.vpce.amazonaws.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    service: Service,
    url: Url,
}

/// A text that is no [`Endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoEndpoint;

impl FromStr for Endpoint {
    type Err = NoEndpoint;

    /// Plain HTTP is taken for this machine itself, and for the metadata service, which has nothing else.
    fn from_str(text: &str) -> Result<Self, NoEndpoint> {
        let (name, url) = text.split_once('=').ok_or(NoEndpoint)?;
        let service = Service::ALL.into_iter().find(|each| each.name() == name);
        let service = service.ok_or(NoEndpoint)?;
        let url = Url::parse(url).map_err(|_| NoEndpoint)?;
        let local = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(_)) | None => false,
        };
        let plain = url.scheme() == "http" && (local || service == Service::AzureMetadata);
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if bare && anonymous && url.has_host() && (url.scheme() == "https" || plain) {
            Ok(Self { service, url })
        } else {
            Err(NoEndpoint)
        }
    }
}

impl FromIterator<Endpoint> for Endpoints {
    fn from_iter<T: IntoIterator<Item = Endpoint>>(endpoints: T) -> Self {
        let pairs = endpoints.into_iter().map(|each| (each.service, each.url));
        Self(pairs.collect())
    }
}

impl Endpoints {
    /// `path` (with a leading slash, and encoded) at `service`, which is at `origin` unless said otherwise.
    pub(super) fn url(&self, service: Service, origin: &str, path: &str) -> Option<Url> {
        let origin = match self.0.get(&service) {
            Some(named) => named.as_str().trim_end_matches('/'),
            None => origin,
        };
        Url::parse(&format!("{origin}{path}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_or_refused() {
        let rows = [
            ("aws-sts=https://sts.example", true),
            ("aws-sts=https://sts.example:8443/", true),
            ("gcp-sts=http://127.0.0.1:9", true),
            ("gcp-iam=http://[::1]:9", true),
            ("azure-metadata=http://169.254.169.254", true),
            ("azure-login=http://login.example", false),
            ("aws-sts=http://10.0.0.1", false),
            ("aws-sts=https://sts.example/path", false),
            ("aws-sts=https://sts.example?x", false),
            ("aws-sts=https://user@sts.example", false),
            ("aws-sts=sts.example", false),
            ("aws-sts=file:///etc/passwd", false),
            ("sts=https://sts.example", false),
            ("https://sts.example", false),
        ];
        for (text, taken) in rows {
            assert_eq!(text.parse::<Endpoint>().is_ok(), taken, "{text}");
        }
    }

    #[test]
    fn a_named_address_replaces_the_public_one_of_its_service_alone() {
        let endpoints: Endpoints = ["aws-sts=https://sts.example:8443".parse().unwrap()]
            .into_iter()
            .collect();
        let url = |service| {
            let url = endpoints.url(service, "https://public.example", "/v1/a?b=c");
            url.unwrap().to_string()
        };
        assert_eq!(url(Service::AwsSts), "https://sts.example:8443/v1/a?b=c");
        assert_eq!(url(Service::GcpSts), "https://public.example/v1/a?b=c");
    }
}
