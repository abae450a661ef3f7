//! Reads the environments of samconfig.toml, the file of the SAM CLI.

use std::fs;

use toml::{Table, Value};

use crate::error::Error;

/// Read from the current folder, as SAM does.
const FILE: &str = "samconfig.toml";

/// An environment of samconfig.toml, as far as it names a stack.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    pub stack_name: String,
    pub region: Option<String>,
}

impl Environment {
    /// Reads the environment `name` of the file in the current folder.
    pub(crate) fn read(name: &str) -> Result<Self, Error> {
        let text = fs::read_to_string(FILE)
            .map_err(|error| {
                Error::Usage(format!(
                    "--env {name}: ./{FILE} cannot be read ({error}): change to your clone, or use --stack and --region"
                ))
            })?;
        Self::parse(&text, name).map_err(|problem| Error::Usage(format!("--env {name}: {problem}")))
    }

    fn parse(text: &str, name: &str) -> Result<Self, String> {
        let file: Table = text.parse().map_err(|error| format!("{FILE} is not valid TOML: {error}"))?;
        let Some(Value::Table(environment)) = file.get(name) else {
            let names: Vec<_> =
                file.iter().filter(|(_, value)| value.is_table()).map(|(key, _)| &**key).collect();
            return Err(format!("{FILE} has no such environment, but has: {}", names.join(", ")));
        };
        // SAM too prefers a command's own parameters to those of `global`.
        let parameter = |key| {
            let find = |command| environment.get(command)?.get("parameters")?.get(key)?.as_str();
            find("deploy").or_else(|| find("global")).map(ToOwned::to_owned)
        };
        let stack_name = parameter("stack_name")
            .ok_or_else(|| format!("{FILE} has no stack_name in [{name}.global.parameters]"))?;
        Ok(Self { stack_name, region: parameter("region") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        version = 0.1
        [blue.global.parameters]
        stack_name = "logins-blue"
        region = "eu-central-1"
        [blue.deploy.parameters]
        stack_name = "logins-blue-2"
        [green.global.parameters]
        region = "eu-central-1"
    "#;

    #[test]
    fn projects_environments_are_read() {
        let config = include_str!("../../../samconfig.toml");

        let names = ["dev", "staging", "prod"].map(|name| Environment::parse(config, name));

        let environment = |stack_name: &str| {
            Ok(Environment { stack_name: stack_name.into(), region: Some("eu-central-1".into()) })
        };
        assert_eq!(names, ["login-etl-dev", "login-etl-staging", "login-etl-prod"].map(environment));
    }

    #[test]
    fn parameters_of_deploy_come_first() {
        let environment = Environment::parse(CONFIG, "blue");

        assert_eq!(
            environment,
            Ok(Environment { stack_name: "logins-blue-2".into(), region: Some("eu-central-1".into()) })
        );
    }

    #[test]
    fn unknown_environments_name_the_known() {
        let error = Environment::parse(CONFIG, "red").unwrap_err();

        assert_eq!(error, "samconfig.toml has no such environment, but has: blue, green");
    }

    #[test]
    fn missing_stack_name_is_an_error() {
        let error = Environment::parse(CONFIG, "green").unwrap_err();

        assert_eq!(error, "samconfig.toml has no stack_name in [green.global.parameters]");
    }
}
