//! The settings of the database, as people write them.

use login_etl::config::AuthMethod::{Md5, None as NoPassword, Password, ScramSha256};
use login_etl::config::{self, DatabaseSettings, DatabaseSource, SettingError};
use serde::Deserialize;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// URLs, each with its parts or its error. `tests/e2e/test_database_urls.py` compares the parts with those that
/// libpq finds.
const URLS: &str = include_str!("database_urls.json");

/// A URL, and either its parts or its error.
#[derive(Deserialize)]
struct Case {
    url: String,
    user: Option<String>,
    password: Option<String>,
    /// Names, separated by commas, as libpq returns them.
    host: Option<String>,
    /// Numbers, separated by commas, as libpq returns them. An empty text is the default port.
    port: Option<String>,
    dbname: Option<String>,
    sslmode: Option<String>,
    error: Option<String>,
}

fn read(variables: &[(&str, &str)]) -> Result<DatabaseSettings, SettingError> {
    DatabaseSettings::read(|name: &str| {
        let set = variables.iter().find(|(variable, _)| *variable == name);
        set.map(|(_, value)| (*value).to_owned())
    })
}

fn config(settings: DatabaseSettings) -> Box<Config> {
    match settings.source {
        DatabaseSource::Url(config) => config,
        other => panic!("not a URL: {other:?}"),
    }
}

fn host_text(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.to_str().unwrap().to_owned(),
    }
}

#[test]
fn each_url_is_read_or_explained() {
    for expected in serde_json::from_str::<Vec<Case>>(URLS).unwrap() {
        let url = &expected.url;

        let outcome = read(&[("DATABASE_URL", url)]);

        if let Some(error) = expected.error {
            assert_eq!(outcome.map(drop).map_err(|error| error.to_string()), Err(error), "{url}");
            continue;
        }
        let config = config(outcome.unwrap());
        let hosts: Vec<_> = config.get_hosts().iter().map(host_text).collect();
        let ports = expected.port.unwrap_or_default();
        let ports: Vec<u16> =
            ports.split(',').map(|port| if port.is_empty() { 5432 } else { port.parse().unwrap() }).collect();
        let is_socket = hosts[0].starts_with('/');
        let has_tls = !is_socket && expected.sslmode.as_deref() != Some("disable");
        assert_eq!(config.get_user(), expected.user.as_deref(), "{url}");
        assert_eq!(config.get_password(), expected.password.as_ref().map(String::as_bytes), "{url}");
        assert_eq!(hosts.join(","), expected.host.unwrap_or_default(), "{url}");
        assert_eq!(config.get_ports(), ports, "{url}");
        assert_eq!(config.get_dbname(), expected.dbname.as_deref(), "{url}");
        assert_eq!(config.get_ssl_mode() == SslMode::Require, has_tls, "{url}");
    }
}

#[test]
fn parameters_of_a_url_are_kept() {
    let url = "postgresql://u:p@h/d?application_name=a&options=-c%20x%3Dy&connect_timeout=7&tcp_user_timeout=5000\
               &keepalives=0&keepalives_idle=30&keepalives_interval=5&keepalives_count=3";

    let config = config(read(&[("DATABASE_URL", url)]).unwrap());

    let mut expected = Config::new();
    expected.host("h").port(5432).user("u").password("p").dbname("d").ssl_mode(SslMode::Require);
    expected.application_name("a").options("-c x=y").connect_timeout(std::time::Duration::from_secs(7));
    expected.tcp_user_timeout(std::time::Duration::from_secs(5)).keepalives(false);
    expected.keepalives_idle(std::time::Duration::from_secs(30)).keepalives_retries(3);
    expected.keepalives_interval(std::time::Duration::from_secs(5));
    assert_eq!(*config, expected);
}

#[test]
fn auth_methods_follow_the_settings() {
    let url = |url| ("DATABASE_URL", url);
    let iam = [
        ("DATABASE_AUTHENTICATION", "iam"),
        ("DATABASE_HOST", "h"),
        ("DATABASE_NAME", "d"),
        ("DATABASE_USER", "u"),
    ];
    for (variables, expected) in [
        (&[("DATABASE_SECRET_ID", "secret")][..], &[ScramSha256][..]),
        (&iam, &[Password, ScramSha256]),
        (&[url("postgresql://u:p@h/d")], &[ScramSha256]),
        (&[url("postgresql://u@h/d")], &[NoPassword, Password, Md5, ScramSha256]),
        (&[url("postgresql://u:p@h/d?require_auth=md5,none")], &[NoPassword, Md5]),
        (&[url("postgresql://u:p@h/d?require_auth=!md5,!none")], &[Password, ScramSha256]),
    ] {
        assert_eq!(read(variables).unwrap().auth_methods, expected, "{variables:?}");
    }
}

#[test]
fn each_host_is_taken_or_explained() {
    let secret = ("DATABASE_SECRET_ID", "secret");
    let cases = [
        ("db", Ok(())),
        (" db.example.com\n", Ok(())),
        ("my_db", Ok(())),
        ("192.0.2.1", Ok(())),
        ("::1", Ok(())),
        ("fe80::1%eth0", Ok(())),
        ("db:5432", Err("DATABASE_HOST contains a port; set DATABASE_PORT instead")),
        ("[::1]:5432", Err("DATABASE_HOST contains a port; set DATABASE_PORT instead")),
        ("postgresql://u:hunter2@db/d", Err("DATABASE_HOST is a URL; set it to the name of the host in it")),
        ("https://db", Err("DATABASE_HOST is a URL; set it to the name of the host in it")),
        ("/run/postgresql", Err("DATABASE_HOST is a Unix socket, which has no TLS; use DATABASE_URL")),
        ("db,db2", Err("DATABASE_HOST is not the name or the address of a host")),
        ("my db", Err("DATABASE_HOST is not the name or the address of a host")),
        ("\"db\"", Err("DATABASE_HOST is not the name or the address of a host")),
        ("[::1]", Err("DATABASE_HOST is not the name or the address of a host")),
        ("db:port", Err("DATABASE_HOST is not the name or the address of a host")),
    ];
    for (host, expected) in cases {
        let outcome = read(&[secret, ("DATABASE_HOST", host)]);

        let outcome = outcome.map(drop).map_err(|error| error.to_string());
        assert_eq!(outcome, expected.map_err(ToOwned::to_owned), "{host}");
    }
}

#[test]
fn each_port_is_taken_or_explained() {
    for (port, is_port) in [("5432", true), (" 5432\n", true), ("0", false), ("65536", false), ("x", false)] {
        let outcome = read(&[("DATABASE_SECRET_ID", "secret"), ("DATABASE_PORT", port)]);

        let expected = if is_port { Ok(()) } else { Err("DATABASE_PORT is not a port number".to_owned()) };
        assert_eq!(outcome.map(drop).map_err(|error| error.to_string()), expected, "{port}");
    }
}

#[test]
fn zero_means_the_default() {
    let plain = "postgresql://u:p@h/d";
    let zeros =
        "connect_timeout=0&tcp_user_timeout=0&keepalives_idle=0&keepalives_interval=0&keepalives_count=0";

    let [default, zero] =
        [plain, &format!("{plain}?{zeros}")].map(|url| config(read(&[("DATABASE_URL", url)]).unwrap()));

    assert_eq!(zero, default);
}

/// A long name is most likely a part of a password with an unencoded `&`.
#[test]
fn long_parameter_is_not_named() {
    for (length, is_named) in [(40, true), (41, false)] {
        let parameter = "k".repeat(length);

        let outcome = read(&[("DATABASE_URL", &format!("postgresql://u:p@h/d?{parameter}=1"))]);

        let error = outcome.map(drop).unwrap_err().to_string();
        assert_eq!(error.contains(&parameter), is_named, "{error}");
    }
}

#[test]
fn logins_are_kept_for_at_least_16_days() {
    let read = |text: &str| config::login_retention_days(|_: &str| Some(text.to_owned()));

    assert_eq!(
        (read(""), read(" "), read("16"), read(" 365 ")),
        (Ok(None), Ok(None), Ok(Some(16)), Ok(Some(365)))
    );
    for wrong in ["15", "0", "-20", "16.5", "a year", "65536"] {
        let error = read(wrong).unwrap_err().to_string();
        assert_eq!(error, "LOGIN_RETENTION_DAYS is not a number of days from 16 to 65535", "{wrong}");
    }
}
