from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
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
    __slots__ = ("actual_mb", "stats", "actual_bytes")
    class StatsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ACTUAL_MB_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    actual_mb: int
    stats: _containers.ScalarMap[str, int]
    actual_bytes: int
    def __init__(self, actual_mb: _Optional[int] = ..., stats: _Optional[_Mapping[str, int]] = ..., actual_bytes: _Optional[int] = ...) -> None: ...

class SetBalloonRequest(_message.Message):
    __slots__ = ("target", "mb", "wait", "bytes")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MB_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    target: str
    mb: int
    wait: bool
    bytes: int
    def __init__(self, target: _Optional[str] = ..., mb: _Optional[int] = ..., wait: _Optional[bool] = ..., bytes: _Optional[int] = ...) -> None: ...

class WorkingSet(_message.Message):
    __slots__ = ("balloon_bytes", "working_set")
    BALLOON_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKING_SET_FIELD_NUMBER: _ClassVar[int]
    balloon_bytes: int
    working_set: _containers.RepeatedCompositeFieldContainer[Bin]
    def __init__(self, balloon_bytes: _Optional[int] = ..., working_set: _Optional[_Iterable[_Union[Bin, _Mapping]]] = ...) -> None: ...

class Bin(_message.Message):
    __slots__ = ("age", "file_bytes", "anonymous_bytes")
    AGE_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ANONYMOUS_BYTES_FIELD_NUMBER: _ClassVar[int]
    age: int
    file_bytes: int
    anonymous_bytes: int
    def __init__(self, age: _Optional[int] = ..., file_bytes: _Optional[int] = ..., anonymous_bytes: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("port", "vendor_id", "product_id", "product", "id")
    PORT_FIELD_NUMBER: _ClassVar[int]
    VENDOR_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    port: int
    vendor_id: int
    product_id: int
    product: str
    id: str
    def __init__(self, port: _Optional[int] = ..., vendor_id: _Optional[int] = ..., product_id: _Optional[int] = ..., product: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class ListUsbResponse(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[UsbDevice]
    def __init__(self, devices: _Optional[_Iterable[_Union[UsbDevice, _Mapping]]] = ...) -> None: ...

class DetachUsbRequest(_message.Message):
    __slots__ = ("target", "port")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    target: str
    port: int
    def __init__(self, target: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class UsbPort(_message.Message):
    __slots__ = ("port",)
    PORT_FIELD_NUMBER: _ClassVar[int]
    port: int
    def __init__(self, port: _Optional[int] = ...) -> None: ...

class ResizeDiskRequest(_message.Message):
    __slots__ = ("target", "index", "bytes")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    target: str
    index: int
    bytes: int
    def __init__(self, target: _Optional[str] = ..., index: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class SwapStatus(_message.Message):
    __slots__ = ("state", "metrics", "transition")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class TransitionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    STATE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TRANSITION_FIELD_NUMBER: _ClassVar[int]
    state: str
    metrics: _containers.ScalarMap[str, int]
    transition: _containers.ScalarMap[str, int]
    def __init__(self, state: _Optional[str] = ..., metrics: _Optional[_Mapping[str, int]] = ..., transition: _Optional[_Mapping[str, int]] = ...) -> None: ...

class SetSwapRequest(_message.Message):
    __slots__ = ("target", "action", "slow_file_cleanup")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTION_UNSPECIFIED: _ClassVar[SetSwapRequest.Action]
        ACTION_ENABLE: _ClassVar[SetSwapRequest.Action]
        ACTION_TRIM: _ClassVar[SetSwapRequest.Action]
        ACTION_OUT: _ClassVar[SetSwapRequest.Action]
        ACTION_DISABLE: _ClassVar[SetSwapRequest.Action]
    ACTION_UNSPECIFIED: SetSwapRequest.Action
    ACTION_ENABLE: SetSwapRequest.Action
    ACTION_TRIM: SetSwapRequest.Action
    ACTION_OUT: SetSwapRequest.Action
    ACTION_DISABLE: SetSwapRequest.Action
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SLOW_FILE_CLEANUP_FIELD_NUMBER: _ClassVar[int]
    target: str
    action: SetSwapRequest.Action
    slow_file_cleanup: bool
    def __init__(self, target: _Optional[str] = ..., action: _Optional[_Union[SetSwapRequest.Action, str]] = ..., slow_file_cleanup: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("target", "keys", "hold_ms")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    HOLD_MS_FIELD_NUMBER: _ClassVar[int]
    target: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    hold_ms: int
    def __init__(self, target: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., hold_ms: _Optional[int] = ...) -> None: ...

class TypeTextRequest(_message.Message):
    __slots__ = ("target", "text")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    target: str
    text: str
    def __init__(self, target: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Typed(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: int
    def __init__(self, keys: _Optional[int] = ...) -> None: ...
