//! The methods of authentication, as libpq's [`require_auth`][libpq] names them.
//!
//! [libpq]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-REQUIRE-AUTH

use std::fmt;

/// How a server lets a client log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// The server requires no password, and proves nothing.
    None,
    /// The client sends the password in clear text.
    Password,
    /// The client sends an MD5 hash of the password.
    Md5,
    /// Client and server prove to each other that they know the password, and do not send it.
    ScramSha256,
}

impl AuthMethod {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Password, Self::Md5, Self::ScramSha256];

    /// Parses names separated by commas, and returns the methods that they permit. If each name begins with `!`,
    /// these are all methods except the named ones. Returns `None` if the list is wrong.
    pub(super) fn parse_list(list: &str) -> Option<Vec<Self>> {
        let is_negated = list.starts_with('!');
        let mut named = Vec::new();
        for name in list.split(',') {
            let name = if is_negated { name.strip_prefix('!')? } else { name };
            named.push(Self::ALL.into_iter().find(|method| method.name() == name)?);
        }
        Some(Self::ALL.into_iter().filter(|method| named.contains(method) != is_negated).collect())
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
        }
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
