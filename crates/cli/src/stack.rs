//! The deployed stack: found by its environment or its name.

use std::collections::HashMap;

use aws_sdk_cloudformation::error::ProvideErrorMetadata;
use clap::Args;

use crate::aws::{self, Aws};
use crate::environment::Environment;
use crate::error::Error;

/// The options that name the stack.
#[derive(Debug, Args)]
pub(crate) struct StackOptions {
    /// Environment of ./samconfig.toml, which has the name and the region of the stack
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "stack")]
    pub env: Option<String>,
    /// Name of the stack
    #[arg(long, global = true, value_name = "NAME")]
    pub stack: Option<String>,
    /// Region of the stack; without it, the region of --env, of AWS_REGION or of the profile
    #[arg(long, global = true, value_name = "REGION")]
    pub region: Option<String>,
}

/// A deployed stack.
#[derive(Debug)]
pub(crate) struct Stack {
    pub name: String,
    /// Makes the clients of the stack's region.
    pub aws: Aws,
    outputs: HashMap<String, String>,
}

impl Stack {
    /// Finds the stack that the options name, and reads its outputs.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the options name no stack or no region, [`Error::Failed`] if AWS has no such stack.
    pub(crate) async fn find(options: &StackOptions) -> Result<Self, Error> {
        let (name, region) = match (&options.env, &options.stack) {
            (Some(env), _) => {
                let environment = Environment::read(env)?;
                (environment.stack_name, environment.region)
            }
            (None, Some(stack)) => (stack.clone(), None),
            (None, None) => return Err(Error::Usage("no stack: add --env or --stack".to_owned())),
        };
        let aws = Aws::connect(options.region.clone().or(region)).await?;
        let outputs = outputs(&aws, &name).await?;
        Ok(Self { name, aws, outputs })
    }

    /// Returns an output of the stack.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the stack has no such output.
    pub(crate) fn output(&self, key: &str) -> Result<&str, Error> {
        self.optional_output(key).ok_or_else(|| {
            Error::Failed(format!(
                "the stack {} has no output {key}: it is another stack, or was never deployed completely",
                self.name
            ))
        })
    }

    /// Returns an output that not every stack has.
    pub(crate) fn optional_output(&self, key: &str) -> Option<&str> {
        self.outputs.get(key).map(String::as_str)
    }
}

async fn outputs(aws: &Aws, name: &str) -> Result<HashMap<String, String>, Error> {
    let answer = aws.cloudformation().describe_stacks().stack_name(name).send().await;
    let answer = answer.map_err(|error| match error.code() {
        // CloudFormation has no code of its own for a stack that does not exist.
        Some("ValidationError") => {
            Error::Failed(format!("there is no stack {name} in the region {}", aws.region()))
        }
        _ => aws::failure("DescribeStacks", &error),
    })?;
    let outputs = answer.stacks().iter().flat_map(aws_sdk_cloudformation::types::Stack::outputs);
    Ok(outputs
        .filter_map(|output| Some((output.output_key()?.to_owned(), output.output_value()?.to_owned())))
        .collect())
}
