//! The settings, read once from environment variables. Errors name the variable, never its value.

use std::net::SocketAddr;

use login_etl::config::{DatabaseSettings, SettingError};

/// The address and port of the plain server.
pub const LISTEN: &str = "LISTEN";
/// The most connections of the plain server to the database. (In Lambda, a process has one.)
pub const DATABASE_CONNECTIONS: &str = "DATABASE_CONNECTIONS";

/// Lambda sets it for every program that it starts.
const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";

const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9100);
const DEFAULT_CONNECTIONS: usize = 4;

/// The settings of the API.
#[derive(Debug)]
pub struct Settings {
    /// The database, with the login of `login_api`.
    pub database: DatabaseSettings,
    /// The most connections to the database at a time.
    pub connections: usize,
    /// Who sends the requests.
    pub runtime: Runtime,
}

/// Who sends the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Lambda, one request at a time.
    Lambda,
    /// HTTP clients, to this address.
    Server(SocketAddr),
}

impl Settings {
    /// Reads the settings. `environment` returns the value of an environment variable, if it is set.
    ///
    /// # Errors
    ///
    /// The first setting that is missing or wrong.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let set = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let invalid = |variable, problem| SettingError::Invalid { variable, problem };
        let (runtime, connections) = if set(RUNTIME_API).is_some() {
            (Runtime::Lambda, 1)
        } else {
            let address = set(LISTEN).map_or(Ok(DEFAULT_ADDRESS), |address| {
                address.trim().parse().map_err(|_| invalid(LISTEN, "is not an IP address with a port"))
            })?;
            let connections = set(DATABASE_CONNECTIONS).map_or(Ok(DEFAULT_CONNECTIONS), |number| {
                let number = number.trim().parse().ok().filter(|number| (1..=100).contains(number));
                number.ok_or(invalid(DATABASE_CONNECTIONS, "is not a number from 1 to 100"))
            })?;
            (Runtime::Server(address), connections)
        };
        Ok(Self { database: DatabaseSettings::read(environment)?, connections, runtime })
    }
}
