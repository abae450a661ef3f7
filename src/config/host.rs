//! Checks the name or address of a host. Without this check, a wrong value would only cause an error of the
//! network, which does not name the setting.

use std::net::IpAddr;

/// The default port of Postgres.
pub(crate) const DEFAULT_PORT: u16 = 5432;

/// Why a text is not the name or address of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostProblem {
    /// A port comes after the host, as in the `endpoint` of Terraform's `aws_db_instance`.
    Port,
    /// A URL.
    Url,
    /// The folder of a Unix socket.
    UnixSocket,
    /// Any other text that cannot be the name of a host.
    NotAHost,
}

impl HostProblem {
    /// Returns what is wrong with the text, or `None` if it can be a host.
    pub(crate) fn find(host: &str) -> Option<Self> {
        let (address, _zone) = host.split_once('%').unwrap_or((host, ""));
        if address.parse::<IpAddr>().is_ok() {
            return None;
        }
        if host.starts_with('/') {
            return Some(Self::UnixSocket);
        }
        if host.contains("://") {
            return Some(Self::Url);
        }
        let (name, has_port) = match host.rsplit_once(':') {
            Some((name, port)) => (name, !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())),
            None => (host, false),
        };
        let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if has_port && (can_be_name(name) || bracketed.is_some_and(|name| name.parse::<IpAddr>().is_ok())) {
            return Some(Self::Port);
        }
        (!can_be_name(host)).then_some(Self::NotAHost)
    }
}

/// Whether DNS may know the name. Names in Docker may contain an underscore; names on the internet do not.
fn can_be_name(host: &str) -> bool {
    let is_allowed = |character: char| character.is_alphanumeric() || ['-', '_', '.'].contains(&character);
    !host.is_empty() && host.chars().all(is_allowed)
}
