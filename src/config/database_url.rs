//! Reads `DATABASE_URL` as [libpq reads its URLs][uri].
//!
//! The Postgres client's own parser differs: it adds a parameter to the value in the address instead of replacing
//! the value, it accepts a wrong `%`, and its errors do not say what is wrong. libpq has defaults that are wrong in
//! a function (the system's user, a Unix socket): this parser refuses a URL that needs them.
//!
//! [uri]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS

use std::fmt::Debug;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs};

use super::auth_method::AuthMethod;
use super::host::{DEFAULT_PORT, HostProblem};

/// Parameters with which other clients choose the schema.
const SCHEMA_KEYS: [&str; 3] = ["currentSchema", "schema", "search_path"];

/// [Parameters of libpq][parameters] that this program does not support.
///
/// [parameters]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
const UNSUPPORTED_KEYS: [&str; 28] = [
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "passfile",
    "replication",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslpassword",
    "sslsni",
];

/// Why the URL cannot be used, and what to write instead. The text continues a sentence that begins with the name
/// of the setting. It holds no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A part of the address is wrong.
    #[error("{0}")]
    Address(&'static str),
    /// A parameter is unknown, or has a wrong value.
    #[error("has the parameter {key}, which {problem}")]
    Parameter {
        /// The parameter.
        key: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// The parts of the URL that name servers: lists, separated by commas.
struct Servers {
    hosts: String,
    ports: String,
    addresses: String,
}

/// Parses the URL, and returns the methods of authentication that it permits. Blanks and line breaks around it are
/// ignored.
///
/// # Errors
///
/// [`UrlError`].
pub(super) fn parse(url: &str) -> Result<(Config, Vec<AuthMethod>), UrlError> {
    let url = url.trim();
    let rest = url.strip_prefix("postgresql://").or_else(|| url.strip_prefix("postgres://"));
    let rest = rest.ok_or_else(|| UrlError::Address(scheme_problem(url)))?;
    if rest.contains(char::is_whitespace) {
        return Err(UrlError::Address("contains a blank or a line break; write a blank as %20"));
    }
    let (login, rest) = split_login(rest);
    let parsed = parse_parts(login, rest);
    if parsed.is_err() && rest.contains('@') {
        // The error of the parser may name a part of the password.
        let problem = "has a / or an @ in the user or the password; write / as %2F and @ as %40";
        return Err(UrlError::Address(problem));
    }
    parsed
}

/// Splits off the user and the password. As with libpq, they end at the first `@`; if a `/` comes before this `@`,
/// the URL has neither. A `?` or a `#` does not end them.
fn split_login(rest: &str) -> (Option<&str>, &str) {
    match rest.find(['@', '/']) {
        Some(end) if rest[end..].starts_with('@') => (Some(&rest[..end]), &rest[end + 1..]),
        _ => (None, rest),
    }
}

fn parse_parts(login: Option<&str>, rest: &str) -> Result<(Config, Vec<AuthMethod>), UrlError> {
    let mut config = Config::new();
    config.ssl_mode(SslMode::Require);
    let (user, password) = login.unwrap_or("").split_once(':').unwrap_or((login.unwrap_or(""), ""));
    set_user(&mut config, &text(user)?);
    set_password(&mut config, &bytes(password)?);

    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (address, name) = address.split_once('/').unwrap_or((address, ""));
    let mut servers = Servers::parse(address)?;
    set_name(&mut config, &text(name)?);

    let mut auth_methods = None;
    let mut had_password = false;
    for parameter in query.split_terminator('&') {
        let (key, value) = parameter
            .split_once('=')
            .ok_or(UrlError::Address("has a parameter without =; write & in a value as %26"))?;
        match &*text(key)? {
            "password" => {
                had_password = true;
                set_password(&mut config, &bytes(value)?);
            }
            "host" => servers.hosts = text(value)?,
            "hostaddr" => servers.addresses = text(value)?,
            "port" => servers.ports = text(value)?,
            "require_auth" => auth_methods = Some(parse_auth_methods(&text(value)?)?),
            key => set_parameter(&mut config, key, &text(value)?, had_password)?,
        }
    }
    if config.get_user().is_none() {
        return Err(UrlError::Address("names no user"));
    }
    servers.add_to(&mut config)?;
    if auth_methods.is_some() && config.get_ssl_mode() == SslMode::Disable {
        return Err(wrong("require_auth", "needs TLS; remove it"));
    }
    let default = match config.get_password() {
        Some(_) => &[AuthMethod::ScramSha256][..],
        // There is no password to protect, and only a server that requires none accepts the login.
        None => &AuthMethod::ALL,
    };
    Ok((config, auth_methods.unwrap_or_else(|| default.to_vec())))
}

impl Servers {
    /// Parses the part between the login and the path.
    fn parse(address: &str) -> Result<Self, UrlError> {
        let mut hosts = Vec::new();
        let mut ports = Vec::new();
        for server in address.split(',') {
            let (host, port) = match server.strip_prefix('[') {
                None => server.split_once(':').unwrap_or((server, "")),
                Some(server) => match server.split_once(']') {
                    Some((host, "")) if !host.is_empty() => (host, ""),
                    Some((host, port)) if !host.is_empty() && port.starts_with(':') => (host, &port[1..]),
                    _ => {
                        return Err(UrlError::Address("has a wrong IPv6 address; write it as in [::1]:5432"));
                    }
                },
            };
            hosts.push(text(host)?);
            ports.push(text(port)?);
        }
        Ok(Self { hosts: hosts.join(","), ports: ports.join(","), addresses: String::new() })
    }

    fn add_to(&self, config: &mut Config) -> Result<(), UrlError> {
        for host in list(&self.hosts) {
            match HostProblem::find(host) {
                None | Some(HostProblem::UnixSocket) => config.host(host),
                Some(_) if host.is_empty() => return Err(UrlError::Address("names no host")),
                Some(_) => return Err(UrlError::Address("has a host that is neither a name nor an address")),
            };
        }
        for address in list(&self.addresses) {
            let address: IpAddr = address.parse().map_err(|_| wrong("hostaddr", "must be an IP address"))?;
            config.hostaddr(address);
        }
        for port in self.ports.split(',') {
            config.port(port_number(port)?);
        }
        self.check_servers(config)
    }

    fn check_servers(&self, config: &mut Config) -> Result<(), UrlError> {
        let sockets = list(&self.hosts).filter(|host| host.starts_with('/')).count();
        let (hosts, addresses) = (list(&self.hosts).count(), list(&self.addresses).count());
        if hosts + addresses == 0 {
            return Err(UrlError::Address("names no host"));
        }
        if hosts > 0 && addresses > 0 && hosts != addresses {
            return Err(wrong("hostaddr", "must have an address for each host"));
        }
        let ports = config.get_ports().len();
        if ports > 1 && ports != hosts.max(addresses) {
            return Err(wrong("port", "must have a port for each host"));
        }
        if sockets > 0 {
            if sockets < hosts || addresses > 0 {
                return Err(UrlError::Address("names a Unix socket beside another host"));
            }
            // As with libpq: a Unix socket has no TLS, whatever `sslmode` says.
            config.ssl_mode(SslMode::Disable);
        }
        if hosts == 0 && config.get_ssl_mode() != SslMode::Disable {
            return Err(wrong("hostaddr", "needs a host beside it: its certificate is verified"));
        }
        Ok(())
    }
}

fn parse_auth_methods(list: &str) -> Result<Vec<AuthMethod>, UrlError> {
    let problem =
        "must list scram-sha-256, md5, password or none, separated by commas, all with or all without !";
    AuthMethod::parse_list(list).ok_or_else(|| wrong("require_auth", problem))
}

fn set_user(config: &mut Config, user: &str) {
    if !user.is_empty() {
        config.user(user);
    }
}

fn set_password(config: &mut Config, password: &[u8]) {
    if !password.is_empty() {
        config.password(password);
    }
}

fn set_name(config: &mut Config, name: &str) {
    if !name.is_empty() {
        config.dbname(name);
    }
}

fn set_parameter(config: &mut Config, key: &str, value: &str, had_password: bool) -> Result<(), UrlError> {
    match key {
        "application_name" => {
            config.application_name(value);
        }
        "dbname" => set_name(config, value),
        "load_balance_hosts" => {
            let modes = [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];
            config.load_balance_hosts(choose(key, "must be disable or random", modes, value)?);
        }
        "options" => {
            config.options(value);
        }
        "target_session_attrs" => {
            let modes = [("any", TargetSessionAttrs::Any), ("read-write", TargetSessionAttrs::ReadWrite)];
            config.target_session_attrs(choose(key, "must be any or read-write", modes, value)?);
        }
        "user" => set_user(config, value),
        "channel_binding" | "ssl" | "sslmode" | "sslnegotiation" | "sslrootcert" => {
            set_tls(config, key, value)?;
        }
        "connect_timeout" | "tcp_user_timeout" => set_timeout(config, key, value)?,
        "keepalives" | "keepalives_count" | "keepalives_idle" | "keepalives_interval" => {
            set_keepalive(config, key, value)?;
        }
        _ if changes_nothing(key, value) => {}
        _ => return Err(unknown_parameter(key, had_password)),
    }
    Ok(())
}

/// Sets a parameter of TLS. The server's certificate is verified in each `sslmode` except `disable`. libpq verifies
/// it in fewer modes.
fn set_tls(config: &mut Config, key: &str, value: &str) -> Result<(), UrlError> {
    match (key, value) {
        // libpq accepts this parameter of JDBC, with this value only.
        ("ssl", "true") => {
            config.ssl_mode(SslMode::Require);
        }
        ("ssl", _) => {
            return Err(wrong(key, "can only be true; write sslmode=require or sslmode=disable"));
        }
        ("sslmode", "no-verify") => {
            let problem = "cannot be no-verify; set DATABASE_CA_BUNDLE to the authority of the certificate";
            return Err(wrong(key, problem));
        }
        ("sslmode", _) => {
            let verified = ["allow", "prefer", "require", "verify-ca", "verify-full"];
            let modes = verified.map(|mode| (mode, SslMode::Require));
            let modes = modes.into_iter().chain([("disable", SslMode::Disable)]);
            config.ssl_mode(choose(key, "must be disable, require or verify-full", modes, value)?);
        }
        ("sslnegotiation", _) => {
            let modes = [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];
            config.ssl_negotiation(choose(key, "must be postgres or direct", modes, value)?);
        }
        // The system's authorities are trusted, unless DATABASE_CA_BUNDLE_ONLY excludes them.
        ("sslrootcert", "system") => {}
        ("sslrootcert", _) => {
            let problem = "is not supported; set DATABASE_CA_BUNDLE to the path of the file, and \
                           DATABASE_CA_BUNDLE_ONLY to true";
            return Err(wrong(key, problem));
        }
        _ => {
            let modes = [
                ("disable", ChannelBinding::Disable),
                ("prefer", ChannelBinding::Prefer),
                ("require", ChannelBinding::Require),
            ];
            config.channel_binding(choose(key, "must be disable, prefer or require", modes, value)?);
        }
    }
    Ok(())
}

/// Sets a timeout. As with libpq, 0 is no timeout.
fn set_timeout(config: &mut Config, key: &str, value: &str) -> Result<(), UrlError> {
    let timeout: u32 = number(key, value)?;
    match key {
        _ if timeout == 0 => {}
        "connect_timeout" => {
            config.connect_timeout(Duration::from_secs(timeout.into()));
        }
        _ => {
            config.tcp_user_timeout(Duration::from_millis(timeout.into()));
        }
    }
    Ok(())
}

/// Sets a parameter of TCP's keepalive. As with libpq, 0 is the system's default.
fn set_keepalive(config: &mut Config, key: &str, value: &str) -> Result<(), UrlError> {
    let number: u32 = number(key, value)?;
    match key {
        "keepalives" => {
            config.keepalives(number != 0);
        }
        _ if number == 0 => {}
        "keepalives_count" => {
            config.keepalives_retries(number);
        }
        "keepalives_idle" => {
            config.keepalives_idle(Duration::from_secs(number.into()));
        }
        _ => {
            config.keepalives_interval(Duration::from_secs(number.into()));
        }
    }
    Ok(())
}

/// Whether a parameter of libpq has the value that this program uses in any case.
fn changes_nothing(key: &str, value: &str) -> bool {
    match key {
        "client_encoding" => ["auto", "utf8", "utf-8"].contains(&&*value.to_lowercase()),
        // The program sets an application name of its own.
        "fallback_application_name" => true,
        "gssencmode" => ["disable", "prefer"].contains(&value),
        "sslcompression" => value == "0",
        "sslsni" => value == "1",
        _ => false,
    }
}

/// Returns an error that names the parameter, unless this name may be a part of a password with an unencoded `&`.
fn unknown_parameter(key: &str, had_password: bool) -> UrlError {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || [b'-', b'_', b'.'].contains(&byte);
    if key == "client_encoding" {
        return wrong(key, "must be UTF8");
    }
    if UNSUPPORTED_KEYS.contains(&key) {
        return wrong(key, "is not supported; remove it");
    }
    if SCHEMA_KEYS.contains(&key) {
        return wrong(key, "libpq does not have; set DATABASE_SCHEMA instead");
    }
    if had_password || key.len() > 40 || !key.bytes().all(is_name) {
        return UrlError::Address("has a parameter that libpq does not have");
    }
    wrong(key, "libpq does not have; remove it")
}

fn scheme_problem(url: &str) -> &'static str {
    if url.starts_with(['"', '\'']) {
        "is in quotation marks; remove them"
    } else if url.starts_with("jdbc:") {
        "is a URL of JDBC; write postgresql://user:password@host/database"
    } else if url.starts_with("postgresql+") || url.starts_with("postgres+") {
        "names a driver of SQLAlchemy; write postgresql:// without + and the driver"
    } else {
        "does not start with postgresql://"
    }
}

fn list(texts: &str) -> impl Iterator<Item = &str> {
    texts.split(',').filter(|_| !texts.is_empty())
}

fn port_number(port: &str) -> Result<u16, UrlError> {
    if port.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    let number = port.parse().ok().filter(|port| *port != 0);
    number.ok_or(UrlError::Address("has a port that is not a number from 1 to 65535"))
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, UrlError> {
    value.parse().map_err(|_| wrong(key, "must be a number, 0 or more"))
}

/// Returns the meaning of the value.
fn choose<'v, T>(
    key: &str,
    problem: &'static str,
    meanings: impl IntoIterator<Item = (&'v str, T)>,
    value: &str,
) -> Result<T, UrlError> {
    let meaning = meanings.into_iter().find(|(name, _)| *name == value);
    meaning.map(|(_, meaning)| meaning).ok_or_else(|| wrong(key, problem))
}

fn wrong(key: &str, problem: &'static str) -> UrlError {
    UrlError::Parameter { key: key.to_owned(), problem }
}

/// Decodes `%XX`.
fn bytes(encoded: &str) -> Result<Vec<u8>, UrlError> {
    let mut after_percent = encoded.split('%').skip(1);
    let is_digit = |byte: &u8| byte.is_ascii_hexdigit();
    if !after_percent.all(|text| text.as_bytes().get(..2).is_some_and(|code| code.iter().all(is_digit))) {
        return Err(UrlError::Address("has a % without two hexadecimal digits after it; write % as %25"));
    }
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    if bytes.contains(&0) {
        return Err(UrlError::Address("contains %00"));
    }
    Ok(bytes)
}

fn text(encoded: &str) -> Result<String, UrlError> {
    String::from_utf8(bytes(encoded)?).map_err(|_| UrlError::Address("is not UTF-8 after %XX is decoded"))
}
