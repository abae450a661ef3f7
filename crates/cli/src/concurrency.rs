//! The concurrency that is reserved for the ingest function.

use aws_sdk_lambda::types::ScalingConfig;

use crate::aws;
use crate::error::Error;
use crate::stack::Stack;

/// Returns the reserved concurrency. `None` if no concurrency is reserved.
pub(crate) async fn reserved(stack: &Stack) -> Result<Option<i32>, Error> {
    let function = stack.output("FunctionName")?;
    let answer = stack.aws.lambda().get_function_concurrency().function_name(function).send().await;
    let answer = answer.map_err(|error| aws::failure("GetFunctionConcurrency", &error))?;
    Ok(answer.reserved_concurrent_executions())
}

/// Checks that the function's reserved concurrency covers all of its mappings: batches that Lambda throttles use up
/// the deliveries of their messages.
pub(crate) async fn check(stack: &Stack) -> Result<(), Error> {
    let Some(reserved) = reserved(stack).await? else { return Ok(()) };
    let function = stack.output("FunctionName")?;
    let mut pages = stack
        .aws
        .lambda()
        .list_event_source_mappings()
        .function_name(function)
        .into_paginator()
        .items()
        .send();
    let mut maximums = Vec::new();
    while let Some(mapping) = pages.next().await {
        let mapping = mapping.map_err(|error| aws::failure("ListEventSourceMappings", &error))?;
        maximums.extend(mapping.scaling_config().and_then(ScalingConfig::maximum_concurrency));
    }
    match problem(reserved, &maximums) {
        Some(problem) => Err(Error::Failed(problem)),
        None => Ok(()),
    }
}

fn problem(reserved: i32, maximums: &[i32]) -> Option<String> {
    let needed: i32 = maximums.iter().sum();
    if reserved == 0 {
        return Some(
            "the function's reserved concurrency is 0: somebody clicked Throttle in the console. Find out why, and \
             restore the previous value first"
                .to_owned(),
        );
    }
    (reserved < needed).then(|| {
        let maximums: Vec<_> = maximums.iter().map(ToString::to_string).collect();
        format!(
            "the function's reserved concurrency is {reserved}, but its mappings need {needed} during a redrive \
             ({}). Raise ReservedConcurrency to {needed}, or lower MaximumConcurrency, and deploy first",
            maximums.join(" + ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrency_must_cover_all_mappings() {
        let problems = [(12, vec![10, 2]), (11, vec![10, 2]), (0, vec![])]
            .map(|(reserved, maximums)| problem(reserved, &maximums));

        assert_eq!(
            problems,
            [
                None,
                Some(
                    "the function's reserved concurrency is 11, but its mappings need 12 during a redrive (10 + 2). \
                     Raise ReservedConcurrency to 12, or lower MaximumConcurrency, and deploy first"
                        .to_owned()
                ),
                Some(
                    "the function's reserved concurrency is 0: somebody clicked Throttle in the console. Find out \
                     why, and restore the previous value first"
                        .to_owned()
                ),
            ]
        );
    }
}
