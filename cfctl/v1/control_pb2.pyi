from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TargetRequest(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: str
    def __init__(self, target: _Optional[str] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Balloon(_message.Message):
    __slots__ = ("actual_mb", "stats")
    class StatsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ACTUAL_MB_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    actual_mb: int
    stats: _containers.ScalarMap[str, int]
    def __init__(self, actual_mb: _Optional[int] = ..., stats: _Optional[_Mapping[str, int]] = ...) -> None: ...

class SetBalloonRequest(_message.Message):
    __slots__ = ("target", "mb")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MB_FIELD_NUMBER: _ClassVar[int]
    target: str
    mb: int
    def __init__(self, target: _Optional[str] = ..., mb: _Optional[int] = ...) -> None: ...

class SetBatteryRequest(_message.Message):
    __slots__ = ("target", "property", "value")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PROPERTY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    target: str
    property: str
    value: str
    def __init__(self, target: _Optional[str] = ..., property: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Display(_message.Message):
    __slots__ = ("id", "width", "height", "dpi", "refresh_rate_hz")
    ID_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DPI_FIELD_NUMBER: _ClassVar[int]
    REFRESH_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    id: int
    width: int
    height: int
    dpi: int
    refresh_rate_hz: int
    def __init__(self, id: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., dpi: _Optional[int] = ..., refresh_rate_hz: _Optional[int] = ...) -> None: ...

class ListDisplaysResponse(_message.Message):
    __slots__ = ("displays",)
    DISPLAYS_FIELD_NUMBER: _ClassVar[int]
    displays: _containers.RepeatedCompositeFieldContainer[Display]
    def __init__(self, displays: _Optional[_Iterable[_Union[Display, _Mapping]]] = ...) -> None: ...

class AddDisplayRequest(_message.Message):
    __slots__ = ("target", "width", "height", "dpi", "refresh_rate_hz")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DPI_FIELD_NUMBER: _ClassVar[int]
    REFRESH_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    target: str
    width: int
    height: int
    dpi: int
    refresh_rate_hz: int
    def __init__(self, target: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., dpi: _Optional[int] = ..., refresh_rate_hz: _Optional[int] = ...) -> None: ...

class RemoveDisplayRequest(_message.Message):
    __slots__ = ("target", "id")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    target: str
    id: int
    def __init__(self, target: _Optional[str] = ..., id: _Optional[int] = ...) -> None: ...

class ScreenshotRequest(_message.Message):
    __slots__ = ("target", "id")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    target: str
    id: int
    def __init__(self, target: _Optional[str] = ..., id: _Optional[int] = ...) -> None: ...

class Picture(_message.Message):
    __slots__ = ("png",)
    PNG_FIELD_NUMBER: _ClassVar[int]
    png: bytes
    def __init__(self, png: _Optional[bytes] = ...) -> None: ...

class UsbDevice(_message.Message):
    __slots__ = ("port", "vendor_id", "product_id")
    PORT_FIELD_NUMBER: _ClassVar[int]
    VENDOR_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    port: int
    vendor_id: int
    product_id: int
    def __init__(self, port: _Optional[int] = ..., vendor_id: _Optional[int] = ..., product_id: _Optional[int] = ...) -> None: ...

class ListUsbResponse(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[UsbDevice]
    def __init__(self, devices: _Optional[_Iterable[_Union[UsbDevice, _Mapping]]] = ...) -> None: ...

class Vcpu(_message.Message):
    __slots__ = ("index", "thread_id", "process_id")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    index: int
    thread_id: int
    process_id: int
    def __init__(self, index: _Optional[int] = ..., thread_id: _Optional[int] = ..., process_id: _Optional[int] = ...) -> None: ...

class ListVcpusResponse(_message.Message):
    __slots__ = ("vcpus",)
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    vcpus: _containers.RepeatedCompositeFieldContainer[Vcpu]
    def __init__(self, vcpus: _Optional[_Iterable[_Union[Vcpu, _Mapping]]] = ...) -> None: ...

class PressKeyRequest(_message.Message):
    __slots__ = ("target", "keys")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    target: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, target: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class TypeTextRequest(_message.Message):
    __slots__ = ("target", "text")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    target: str
    text: str
    def __init__(self, target: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...
