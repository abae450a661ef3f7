"""The bootstrap of a function that gives the same answer to every event.

With it, tests show how an event-source mapping treats each kind of answer. The Runtime API:
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html.
"""

import os
from urllib.request import Request, urlopen


def main() -> None:
    """Answer every event with the variable ANSWER."""
    invocation = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
    answer = os.environ["ANSWER"].encode()
    while True:
        with urlopen(f"{invocation}/next") as event:
            request_id = event.headers["Lambda-Runtime-Aws-Request-Id"]
        urlopen(Request(f"{invocation}/{request_id}/response", answer)).close()


if __name__ == "__main__":
    main()
