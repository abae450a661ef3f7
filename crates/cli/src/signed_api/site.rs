//! The address of an API in AWS, and how its requests are signed.

use std::fmt::Write;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters that are percent-encoded in the [query of a signed request][encoding].
///
/// [encoding]: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The address of an API: an HTTP API of API Gateway, or a function URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Without a slash at the end.
    url: String,
    /// The name of the service in the signature.
    pub service: &'static str,
    /// The region that is part of the host; another host, such as a custom domain, has none.
    pub region: Option<String>,
    /// The permission that the caller needs.
    pub permission: String,
}

impl Site {
    /// Returns the address of a path of the API.
    ///
    /// The query is encoded again, strictly: a browser sends a space as `+` and a comma as it is, and the signer and
    /// AWS would not read them in the same way.
    pub(crate) fn address(&self, path: &str, query: Option<&str>) -> String {
        let mut address = format!("{}{path}", self.url);
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        for (separator, (name, value)) in std::iter::once('?').chain(std::iter::repeat('&')).zip(pairs) {
            let name = utf8_percent_encode(&name, ENCODED);
            // Writing to a text cannot fail.
            let _ = write!(address, "{separator}{name}={}", utf8_percent_encode(&value, ENCODED));
        }
        address
    }
}

impl FromStr for Site {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_url = || "write a URL that begins with https://".to_owned();
        let url: Uri = text.parse().map_err(|_| no_url())?;
        let host = url.host().unwrap_or_default().to_ascii_lowercase();
        let encrypted = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(no_url()),
        };
        if !encrypted && !is_loopback(&host) {
            return Err("http:// would send the answers unencrypted: write https://".to_owned());
        }
        if url.query().is_some() || url.authority().is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err("write a URL without a user and without a query".to_owned());
        }
        let labels: Vec<_> = host.split('.').collect();
        let (service, region, permission) = match labels[..] {
            [id, "execute-api", region, _, ..] => {
                let partition = partition(region);
                let api = format!("arn:{partition}:execute-api:{region}:*:{id}/*");
                ("execute-api", Some(region.to_owned()), format!("execute-api:Invoke on {api}"))
            }
            [_, "lambda-url", region, ..] => {
                let actions = "lambda:InvokeFunctionUrl and lambda:InvokeFunction";
                ("lambda", Some(region.to_owned()), format!("{actions} on the function behind {host}"))
            }
            _ => ("execute-api", None, format!("execute-api:Invoke on the API behind {host}")),
        };
        Ok(Self { url: text.trim_end_matches('/').to_owned(), service, region, permission })
    }
}

fn is_loopback(host: &str) -> bool {
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_some_and(|address| address.is_loopback())
}

/// Returns the [partition] of a region, as ARNs name it.
///
/// [partition]: https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
fn partition(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "aws-cn",
        Some("eusc") => "aws-eusc",
        Some("us") if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "https://a1b2c3.execute-api.eu-central-1.amazonaws.com";

    fn problem(url: &str) -> String {
        url.parse::<Site>().unwrap_err()
    }

    #[test]
    fn host_decides_service_and_region() {
        for (host, service, region) in [
            ("a1b2c3.execute-api.eu-central-1.amazonaws.com", "execute-api", Some("eu-central-1")),
            ("a1b2c3.execute-api.cn-north-1.amazonaws.com.cn", "execute-api", Some("cn-north-1")),
            ("A1B2C3.Lambda-URL.eu-central-1.on.aws", "lambda", Some("eu-central-1")),
            ("a1b2c3.execute-api.localhost:4566", "execute-api", None),
            ("analysts.example.com", "execute-api", None),
            ("[::1]:4566", "execute-api", None),
        ] {
            let site: Site = format!("https://{host}/").parse().unwrap();

            assert_eq!((site.service, site.region.as_deref()), (service, region), "{host}");
        }
    }

    #[test]
    fn permission_names_the_api() {
        for (host, permission) in [
            (
                "a1b2c3.execute-api.eu-central-1.amazonaws.com",
                "execute-api:Invoke on arn:aws:execute-api:eu-central-1:*:a1b2c3/*",
            ),
            (
                "a1b2c3.execute-api.us-gov-west-1.amazonaws.com",
                "execute-api:Invoke on arn:aws-us-gov:execute-api:us-gov-west-1:*:a1b2c3/*",
            ),
            (
                "a1b2c3.execute-api.cn-north-1.amazonaws.com.cn",
                "execute-api:Invoke on arn:aws-cn:execute-api:cn-north-1:*:a1b2c3/*",
            ),
            (
                "a1b2c3.lambda-url.eu-central-1.on.aws",
                "lambda:InvokeFunctionUrl and lambda:InvokeFunction on the function behind a1b2c3.lambda-url.eu-central-1.on.aws",
            ),
            ("analysts.example.com", "execute-api:Invoke on the API behind analysts.example.com"),
        ] {
            let site: Site = format!("https://{host}").parse().unwrap();

            assert_eq!(site.permission, permission);
        }
    }

    #[test]
    fn addresses_keep_the_stage() {
        let without: Site = API.parse().unwrap();
        let with: Site = format!("{API}/prod/").parse().unwrap();

        assert_eq!(without.address("/", None), format!("{API}/"));
        assert_eq!(with.address("/v1/rings", None), format!("{API}/prod/v1/rings"));
    }

    #[test]
    fn queries_are_encoded_strictly() {
        let site: Site = API.parse().unwrap();

        let address = site.address("/", Some("after=37,9f&q=a+b%20c&u=%c3%a9~*'&empty&x=%26%3D%ff"));

        assert_eq!(
            address,
            format!("{API}/?after=37%2C9f&q=a%20b%20c&u=%C3%A9~%2A%27&empty=&x=%26%3D%EF%BF%BD")
        );
    }

    #[test]
    fn unencrypted_urls_lead_to_this_machine() {
        for host in ["127.0.0.1:4566", "[::1]:4566", "localhost:4566", "a.execute-api.localhost:4566"] {
            assert!(format!("http://{host}/stage").parse::<Site>().is_ok(), "{host}");
        }
        for host in ["analysts.example.com", "10.0.0.1", "localhost.example.com", "notlocalhost"] {
            assert_eq!(
                problem(&format!("http://{host}")),
                "http:// would send the answers unencrypted: write https://"
            );
        }
    }

    #[test]
    fn other_texts_are_no_addresses() {
        for url in ["no url", "analysts.example.com", "/path", "ftp://example.com", "file:///etc/passwd"] {
            assert_eq!(problem(url), "write a URL that begins with https://", "{url}");
        }
        for url in ["https://user@example.com", "https://example.com/?query"] {
            assert_eq!(problem(url), "write a URL without a user and without a query", "{url}");
        }
    }
}
