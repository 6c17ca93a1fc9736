# SPDX-License-Identifier: Apache-2.0
"""Result types and errors are plain values."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle

import pytest

from fake_core import FakeHandle, make_path
from manypath import ManypathError, Portal, Target, _types, errors
from manypath._types import PathState

PORTAL = Portal.parse("192.0.2.1:3260")
TARGET = Target(PORTAL, "iqn.2010-10.org.example:1", 1)
FAILED = make_path(
    TARGET,
    state=PathState.FAILED,
    error=errors.PortalRefusedError("no", portal=PORTAL, errno=111),
)
CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, ManypathError)
]


def test_every_code_has_its_own_class() -> None:
    assert set(errors.CLASS_BY_CODE) == set(errors.Code)
    assert len(set(errors.CLASS_BY_CODE.values())) == len(errors.Code)
    for code, error_class in errors.CLASS_BY_CODE.items():
        assert error_class("x").code == code
        assert error_class("x").code_name == errors.Code(code).name


@pytest.mark.parametrize("error_class", CLASSES)
def test_errors_can_be_copied(error_class: type[ManypathError]) -> None:
    error = error_class(
        "what happened",
        phase="login",
        errno=5,
        iscsid_code=8,
        portal=PORTAL,
        retryable=True,
        paths=(make_path(TARGET),),
    )
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is error_class
        assert str(twin) == "what happened"
        assert twin.as_dict() == error.as_dict()
    assert json.loads(json.dumps(error.as_dict()))["errno"] == 5
    assert error.errno == 5


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(errors.InvalidRequestError, ValueError)
    assert issubclass(errors.OperationTimeoutError, TimeoutError)
    assert issubclass(errors.PermissionDeniedError, PermissionError)


def test_unknown_code() -> None:
    error = ManypathError("x", code=-1)
    assert error.code_name == "UNKNOWN"


@pytest.mark.parametrize(
    "record",
    [value for value in vars(_types).values() if dataclasses.is_dataclass(value)],
)
def test_records_are_frozen_and_small(record: type) -> None:
    assert record.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(record)
    assert not any("__dict__" in vars(base) for base in record.__mro__)


def test_as_dict_is_json() -> None:
    attachment = dataclasses.replace(
        FakeHandle().attach((TARGET,), 1000, 1), paths=(make_path(TARGET), FAILED)
    )
    found = json.loads(json.dumps(attachment.as_dict()))
    assert found["path"] == "/dev/dm-3"
    assert found["paths"][0]["portal"] == "192.0.2.1:3260"
    assert found["paths"][0]["state"] == "active"
    assert found["paths"][0]["error"] is None
    assert found["paths"][1]["error"]["code_name"] == "REFUSED"
    assert found["timings"]["login"] == 0.02
    assert found["warnings"] == ["from the core"]
