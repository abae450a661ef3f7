//! The program's command line, as far as it needs no AWS.

use std::path::Path;
use std::process::{Command, Output};

const COMMANDS: [&str; 13] = [
    "accept-salt",
    "completions",
    "erase",
    "logs",
    "man",
    "page",
    "redrive",
    "reveal",
    "rotate",
    "smoke",
    "status",
    "token",
    "vault",
];
const TOKEN: &str = "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3";

/// Runs the program in an empty environment and in the folder of the package, which has no samconfig.toml.
fn run(arguments: &[&str]) -> Output {
    run_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments)
}

fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_login-etl"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        // Nothing listens there: no test may reach AWS.
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .output()
        .expect("the program starts")
}

/// Returns the exit status and standard error of a run that prints no result.
fn failure(output: &Output) -> (Option<i32>, String) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn missing_stack_is_wrong_use() {
    let (status, error) = failure(&run(&["redrive"]));

    assert_eq!((status, &*error), (Some(2), "login-etl: no stack: add --env or --stack\n"));
}

#[test]
fn missing_region_is_wrong_use() {
    let (status, error) = failure(&run(&["--stack", "login-etl-prod", "redrive"]));

    let expected = "login-etl: no region: add --region, or set AWS_REGION or the profile's region\n";
    assert_eq!((status, &*error), (Some(2), expected));
}

#[test]
fn missing_samconfig_is_wrong_use() {
    let (status, error) = failure(&run(&["--env", "prod", "redrive"]));

    assert_eq!(status, Some(2));
    assert!(error.starts_with("login-etl: --env prod: ./samconfig.toml cannot be read ("), "{error}");
    assert!(error.ends_with("change to your clone, or use --stack and --region\n"), "{error}");
}

#[test]
fn unknown_environment_is_wrong_use() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");

    let (status, error) = failure(&run_in(&root, &["--env", "live", "redrive"]));

    let expected =
        "login-etl: --env live: samconfig.toml has no such environment, but has: dev, prod, staging\n";
    assert_eq!((status, &*error), (Some(2), expected));
}

#[test]
fn wrong_arguments_are_wrong_use() {
    for arguments in [
        &["logs", "--stack", "login-etl-prod"][..],
        &["redrive", "--stack", "login-etl-prod", "--env", "prod"],
        &["redrive", "--patience", "0"],
        &["logs", "--failed", "--since", "yesterday"],
        &["page", "--url", "http://example.com"],
        &["page", "--url", "https://example.com", "--stack", "login-etl-prod"],
        &["page", "--port", "65536", "--stack", "login-etl-prod"],
        &["reveal", "--stack", "s"],
        &["reveal", TOKEN, "--reason", "incident"],
        &["reveal", TOKEN, "--ticket", "SEC-1"],
        &["reveal", TOKEN, "--reason", "curiosity", "--ticket", "SEC-1"],
        &["token"],
        &["token", "--field", "user_id"],
        &["token", "--field", "ip", "203.0.113.7"],
        &["erase", "--reason", "legal", "--ticket", "SEC-1"],
        &["erase", TOKEN, "--user", "--reason", "legal", "--ticket", "SEC-1"],
        &["erase", TOKEN, "--field", "ip", "--reason", "legal", "--ticket", "SEC-1"],
        &["erase", "--user", "alice", "--reason", "legal", "--ticket", "SEC-1"],
        &[],
    ] {
        let (status, error) = failure(&run(arguments));

        assert_eq!(status, Some(2), "{arguments:?}");
        assert!(error.contains("--help"), "{arguments:?}: {error}");
    }
}

#[test]
fn values_in_place_of_tokens_are_not_repeated() {
    for command in ["reveal", "erase"] {
        let arguments = [command, "203.0.113.7", "--reason", "fraud", "--ticket", "SEC-1", "--stack", "s"];

        let (status, error) = failure(&run(&arguments));

        let expected = "login-etl: TOKEN is not a token, which has 64 lowercase hexadecimal digits\n";
        assert_eq!((status, &*error), (Some(2), expected), "{command}");
    }
}

#[test]
fn unreachable_aws_is_a_failure() {
    let (status, error) = failure(&run(&["--stack", "s", "--region", "eu-central-1", "smoke", "--yes"]));

    assert_eq!(status, Some(1));
    assert!(error.starts_with("login-etl: DescribeStacks failed: "), "{error}");
}

#[test]
fn man_page_has_every_command() {
    let output = run(&["man"]);

    let page = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(page.contains(".TH login-etl 1"), "{page}");
    for command in COMMANDS {
        let name = format!("login\\-etl\\-{}", command.replace('-', "\\-"));
        assert!(page.contains(&format!("{name}(1)")), "{command}: {page}");
        let output = run(&["man", command]);
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(page.contains(&format!(".SH NAME\n{name} ")), "{command}: {page}");
        assert!(page.contains("\\-\\-region"), "{command}: {page}");
    }
}

#[test]
fn part_of_a_command_has_a_man_page() {
    for part in ["agree", "verify", "honey"] {
        let output = run(&["man", "vault", part]);

        let page = String::from_utf8(output.stdout).unwrap();
        assert!(page.contains(&format!(".SH NAME\nlogin\\-etl\\-vault\\-{part} ")), "{part}: {page}");
    }
}

#[test]
fn wrong_arguments_of_vault_are_wrong_use() {
    for arguments in [
        &["vault"][..],
        &["vault", "agree", "--since", "yesterday"],
        &["vault", "agree", "--since", "2026-11-27", "--days", "2"],
        &["vault", "agree", "--days", "0"],
        &["vault", "agree", "--cloudtrail"],
        &["vault", "verify", "--sample", "101"],
        &["vault", "honey", "0", "--reason", "test", "--ticket", "SEC-1"],
        &["vault", "honey", "3"],
    ] {
        let (status, _) = failure(&run(arguments));

        assert_eq!(status, Some(2), "{arguments:?}");
    }
}

#[test]
fn unknown_command_has_no_man_page() {
    let (status, error) = failure(&run(&["man", "unmask"]));

    assert_eq!(
        (status, &*error),
        (Some(2), "login-etl: login-etl has no command unmask; login-etl --help lists them\n")
    );
}

#[test]
fn each_shell_completes_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]);

        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}
