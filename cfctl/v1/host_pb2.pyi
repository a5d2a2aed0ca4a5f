from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HostStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HostStatus(_message.Message):
    __slots__ = ("hostname", "version", "state", "instances", "changes")
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    version: str
    state: str
    instances: int
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    def __init__(self, hostname: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., instances: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("action", "object", "reason")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    action: str
    object: str
    reason: str
    def __init__(self, action: _Optional[str] = ..., object: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DoctorRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DoctorReport(_message.Message):
    __slots__ = ("result", "findings")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    result: str
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, result: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("family", "check", "result", "found", "why", "help", "fixable")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    HELP_FIELD_NUMBER: _ClassVar[int]
    FIXABLE_FIELD_NUMBER: _ClassVar[int]
    family: str
    check: str
    result: str
    found: str
    why: str
    help: str
    fixable: bool
    def __init__(self, family: _Optional[str] = ..., check: _Optional[str] = ..., result: _Optional[str] = ..., found: _Optional[str] = ..., why: _Optional[str] = ..., help: _Optional[str] = ..., fixable: _Optional[bool] = ...) -> None: ...
