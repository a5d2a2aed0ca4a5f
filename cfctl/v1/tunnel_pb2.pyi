from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TunnelRequest(_message.Message):
    __slots__ = ("open", "data", "finished")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    open: TunnelTarget
    data: bytes
    finished: bool
    def __init__(self, open: _Optional[_Union[TunnelTarget, _Mapping]] = ..., data: _Optional[bytes] = ..., finished: _Optional[bool] = ...) -> None: ...

class TunnelTarget(_message.Message):
    __slots__ = ("target", "service")
    class Service(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SERVICE_UNSPECIFIED: _ClassVar[TunnelTarget.Service]
        SERVICE_ADB: _ClassVar[TunnelTarget.Service]
        SERVICE_CONSOLE: _ClassVar[TunnelTarget.Service]
    SERVICE_UNSPECIFIED: TunnelTarget.Service
    SERVICE_ADB: TunnelTarget.Service
    SERVICE_CONSOLE: TunnelTarget.Service
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    target: str
    service: TunnelTarget.Service
    def __init__(self, target: _Optional[str] = ..., service: _Optional[_Union[TunnelTarget.Service, str]] = ...) -> None: ...

class TunnelResponse(_message.Message):
    __slots__ = ("opened", "data", "finished", "closed")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    opened: bool
    data: bytes
    finished: bool
    closed: Closed
    def __init__(self, opened: _Optional[bool] = ..., data: _Optional[bytes] = ..., finished: _Optional[bool] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
