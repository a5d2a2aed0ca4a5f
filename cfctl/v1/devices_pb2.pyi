from cfctl.v1 import device_pb2 as _device_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[_device_pb2.Device]
    def __init__(self, devices: _Optional[_Iterable[_Union[_device_pb2.Device, _Mapping]]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeviceEvent(_message.Message):
    __slots__ = ("changed", "removed")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    changed: _device_pb2.Device
    removed: str
    def __init__(self, changed: _Optional[_Union[_device_pb2.Device, _Mapping]] = ..., removed: _Optional[str] = ...) -> None: ...

class LaunchRequest(_message.Message):
    __slots__ = ("name", "host_package", "images", "gpu", "num_instances", "cpus", "memory_mb", "flags", "restart", "timeout_s", "no_wait")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_PACKAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    NUM_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    NO_WAIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    host_package: str
    images: str
    gpu: str
    num_instances: int
    cpus: _containers.RepeatedScalarFieldContainer[int]
    memory_mb: _containers.RepeatedScalarFieldContainer[int]
    flags: _containers.RepeatedScalarFieldContainer[str]
    restart: str
    timeout_s: int
    no_wait: bool
    def __init__(self, name: _Optional[str] = ..., host_package: _Optional[str] = ..., images: _Optional[str] = ..., gpu: _Optional[str] = ..., num_instances: _Optional[int] = ..., cpus: _Optional[_Iterable[int]] = ..., memory_mb: _Optional[_Iterable[int]] = ..., flags: _Optional[_Iterable[str]] = ..., restart: _Optional[str] = ..., timeout_s: _Optional[int] = ..., no_wait: _Optional[bool] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RestartRequest(_message.Message):
    __slots__ = ("name", "timeout_s", "no_wait")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    NO_WAIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    timeout_s: int
    no_wait: bool
    def __init__(self, name: _Optional[str] = ..., timeout_s: _Optional[int] = ..., no_wait: _Optional[bool] = ...) -> None: ...

class LifecycleEvent(_message.Message):
    __slots__ = ("step", "note", "progress", "phase", "device")
    STEP_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    step: Step
    note: str
    progress: Progress
    phase: Phase
    device: _device_pb2.Device
    def __init__(self, step: _Optional[_Union[Step, _Mapping]] = ..., note: _Optional[str] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., phase: _Optional[_Union[Phase, _Mapping]] = ..., device: _Optional[_Union[_device_pb2.Device, _Mapping]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("title", "seconds", "ok")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    title: str
    seconds: float
    ok: bool
    def __init__(self, title: _Optional[str] = ..., seconds: _Optional[float] = ..., ok: _Optional[bool] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("done", "total")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class Phase(_message.Message):
    __slots__ = ("phase", "detail", "seconds", "took", "typical")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    TYPICAL_FIELD_NUMBER: _ClassVar[int]
    phase: str
    detail: str
    seconds: float
    took: float
    typical: float
    def __init__(self, phase: _Optional[str] = ..., detail: _Optional[str] = ..., seconds: _Optional[float] = ..., took: _Optional[float] = ..., typical: _Optional[float] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("name", "which", "follow", "lines")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHICH_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    name: str
    which: str
    follow: bool
    lines: int
    def __init__(self, name: _Optional[str] = ..., which: _Optional[str] = ..., follow: _Optional[bool] = ..., lines: _Optional[int] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("line",)
    LINE_FIELD_NUMBER: _ClassVar[int]
    line: str
    def __init__(self, line: _Optional[str] = ...) -> None: ...
