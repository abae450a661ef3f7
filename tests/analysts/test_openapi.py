"""The document of the API: valid, the same as the code's, and complete."""

import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from analysts.server import Answer, Api
from dev import ROOT

# What a path template in the document stands for in a request.
EXAMPLES = {"token": "0" * 64, "ring": "0" * 64}


def test_document_is_openapi_31(api: Api) -> None:
    document = api.get("/openapi.json").json

    errors = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]

    assert errors == []
    assert document["openapi"].startswith("3.1.")


def test_each_route_is_documented(api: Api) -> None:
    paths = api.get("/openapi.json").json["paths"]
    sources = sorted((ROOT / "crates" / "api" / "src").rglob("*.rs"))
    routes = {
        route
        for source in sources
        for route in re.findall(r'(?:\bpath = |\broute\(\s*)"(/[^"]*)"', source.read_text())
    }

    assert set(paths) == {route for route in routes if route.startswith("/v1/")}
    assert "/v1/duplicates" in paths


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v2/freshness", "/openapi.yaml"])
def test_other_path_is_not_found(api: Api, path: str) -> None:
    assert api.get(path).status == 404


def test_each_documented_operation_answers(api: Api) -> None:
    paths = api.get("/openapi.json").json["paths"]

    without_route = [
        path
        for path, operations in paths.items()
        for method in operations
        if not _has_route(api.send(method.upper(), path.format(**EXAMPLES)))
    ]

    assert without_route == []


def _has_route(answer: Answer) -> bool:
    """Return whether the answer is not that of the router for paths and methods without a route."""
    return answer.status != 405 and (
        answer.status != 404 or answer.json["detail"] != "the paths are in /openapi.json"
    )
