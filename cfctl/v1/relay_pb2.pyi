from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RelayStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RelayStatus(_message.Message):
    __slots__ = ("version", "pid", "user", "started_at", "listeners", "connections", "calls", "children", "tokens", "refused")
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    version: str
    pid: int
    user: str
    started_at: str
    listeners: _containers.RepeatedCompositeFieldContainer[Listener]
    connections: int
    calls: int
    children: int
    tokens: int
    refused: _containers.ScalarMap[str, int]
    def __init__(self, version: _Optional[str] = ..., pid: _Optional[int] = ..., user: _Optional[str] = ..., started_at: _Optional[str] = ..., listeners: _Optional[_Iterable[_Union[Listener, _Mapping]]] = ..., connections: _Optional[int] = ..., calls: _Optional[int] = ..., children: _Optional[int] = ..., tokens: _Optional[int] = ..., refused: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Listener(_message.Message):
    __slots__ = ("what", "address", "fingerprint")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    what: str
    address: str
    fingerprint: str
    def __init__(self, what: _Optional[str] = ..., address: _Optional[str] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("role", "devices", "ttl", "user")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    role: str
    devices: str
    ttl: str
    user: str
    def __init__(self, role: _Optional[str] = ..., devices: _Optional[str] = ..., ttl: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("id", "user", "role", "devices", "created_at", "expires_at", "expired")
    ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    id: str
    user: str
    role: str
    devices: str
    created_at: str
    expires_at: str
    expired: bool
    def __init__(self, id: _Optional[str] = ..., user: _Optional[str] = ..., role: _Optional[str] = ..., devices: _Optional[str] = ..., created_at: _Optional[str] = ..., expires_at: _Optional[str] = ..., expired: _Optional[bool] = ...) -> None: ...

class NewToken(_message.Message):
    __slots__ = ("token", "secret")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    token: Token
    secret: str
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTokensResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...

class RevokeTokenRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class OpenScreenRequest(_message.Message):
    __slots__ = ("name", "role")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class Link(_message.Message):
    __slots__ = ("url", "device", "role", "seconds", "fingerprint")
    URL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    url: str
    device: str
    role: str
    seconds: int
    fingerprint: str
    def __init__(self, url: _Optional[str] = ..., device: _Optional[str] = ..., role: _Optional[str] = ..., seconds: _Optional[int] = ..., fingerprint: _Optional[str] = ...) -> None: ...
