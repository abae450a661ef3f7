//! The settings, read once from environment variables. Errors name the variable, never its value.

use std::net::SocketAddr;

use login_etl::config::{DatabaseSettings, SettingError};

use crate::load_balancer::{LoadBalancerSettings, keys_url};

/// The address and port of the plain server.
pub const LISTEN: &str = "LISTEN";
/// The most connections of the plain server to the database. (In Lambda, a process has one.)
pub const DATABASE_CONNECTIONS: &str = "DATABASE_CONNECTIONS";
/// The ARN of the load balancer in front of the program, which logs users in.
pub const ALB_ARN: &str = "ALB_ARN";
/// The issuer in the load balancer's action `authenticate-oidc`.
pub const OIDC_ISSUER: &str = "OIDC_ISSUER";
/// The client id in the load balancer's action `authenticate-oidc`.
pub const OIDC_CLIENT_ID: &str = "OIDC_CLIENT_ID";

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
    /// The load balancer whose users are accepted; `None` if IAM verifies the callers.
    pub load_balancer: Option<LoadBalancerSettings>,
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
        let load_balancer = set(ALB_ARN).map(|arn| read_load_balancer(arn, &set)).transpose()?;
        Ok(Self { database: DatabaseSettings::read(&environment)?, connections, runtime, load_balancer })
    }
}

fn read_load_balancer(
    arn: String,
    set: &impl Fn(&str) -> Option<String>,
) -> Result<LoadBalancerSettings, SettingError> {
    let problem = "is not the ARN of an Application Load Balancer in the partition aws or aws-us-gov";
    let keys_url = keys_url(&arn).ok_or(SettingError::Invalid { variable: ALB_ARN, problem })?;
    let required = |name| set(name).ok_or(SettingError::Missing(name));
    Ok(LoadBalancerSettings {
        arn,
        issuer: required(OIDC_ISSUER)?,
        client_id: required(OIDC_CLIENT_ID)?,
        keys_url,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str =
        "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/analysts/50dc6c495c0c9188";

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let database = [("DATABASE_URL", "postgresql://login_api:secret@db.example.com/logins")];
        Settings::read(|name| {
            let all = database.iter().chain(variables);
            all.into_iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn load_balancer_has_three_settings() {
        let settings =
            read(&[(ALB_ARN, ARN), (OIDC_ISSUER, "https://idp.example.com"), (OIDC_CLIENT_ID, "analysts")]);

        assert_eq!(
            settings.unwrap().load_balancer,
            Some(LoadBalancerSettings {
                arn: ARN.into(),
                issuer: "https://idp.example.com".into(),
                client_id: "analysts".into(),
                keys_url: "https://public-keys.auth.elb.eu-central-1.amazonaws.com".into(),
            })
        );
        assert_eq!(read(&[(ALB_ARN, " ")]).unwrap().load_balancer, None);
    }

    #[test]
    fn incomplete_load_balancer_is_an_error() {
        for (variables, expected) in [
            (&[(ALB_ARN, ARN), (OIDC_CLIENT_ID, "analysts")][..], "OIDC_ISSUER is not set"),
            (&[(ALB_ARN, ARN), (OIDC_ISSUER, "https://idp.example.com")], "OIDC_CLIENT_ID is not set"),
            (
                &[(ALB_ARN, "analysts")],
                "ALB_ARN is not the ARN of an Application Load Balancer in the partition aws or aws-us-gov",
            ),
        ] {
            assert_eq!(read(variables).unwrap_err().to_string(), expected);
        }
    }
}
