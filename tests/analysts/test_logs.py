"""What the API logs: nothing of a request, and nothing of the rows."""

import json
import re

from analysts import sample
from analysts.server import Api
from dev.logins import encodings

SEARCHED = "a searched user 0f1e2d"


def test_trace_log_holds_no_value(api: Api) -> None:
    values = [SEARCHED, sample.RAW_ADDRESS, *sample.RING_USERS, *sample.HOSTILE_USERS]
    before = len(api.log.read_text().splitlines())
    for user in values:
        api.post("/v1/logins/search", {"user_id": user})
        api.post("/v1/logins/search", {"user_id": user, "days": user})
        api.send("POST", "/v1/logins/search", user.encode(), {"Content-Type": "application/json"})
    for path in (f"/v1/tokens/{sample.HOSTILE_DEVICE}", f"/v1/tokens/{sample.RAW_ADDRESS}"):
        api.get(f"{path}/users", User_Agent=SEARCHED, Accept=SEARCHED, If_None_Match=SEARCHED)
    api.send("anna", f"/{SEARCHED.replace(' ', '-')}")

    lines = api.log.read_text().splitlines()

    text = "\n".join(lines)
    assert [
        value for value in values for form in encodings(value) if len(form) > 5 and form in text
    ] == []
    assert "anna" not in text
    assert re.findall(r"[0-9a-f]{64}", text) == []
    # The search had input: a line for each request, in JSON.
    requests = [line for line in map(json.loads, lines[before:]) if line["message"] == "request"]
    assert len(requests) == 3 * len(values) + 3
