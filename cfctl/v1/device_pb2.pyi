from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Device(_message.Message):
    __slots__ = ("name", "state", "runtime", "container", "source", "home", "host_package", "generation", "gpu_mode", "gpu_reason", "owner", "created_at", "started_at", "booted_at", "suspended_at", "restart", "uptime_s", "memory_mb", "guest_memory_mb", "instances", "failure", "engine")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    HOME_FIELD_NUMBER: _ClassVar[int]
    HOST_PACKAGE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GPU_MODE_FIELD_NUMBER: _ClassVar[int]
    GPU_REASON_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    BOOTED_AT_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_AT_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    GUEST_MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    runtime: str
    container: str
    source: str
    home: str
    host_package: str
    generation: str
    gpu_mode: str
    gpu_reason: str
    owner: str
    created_at: str
    started_at: str
    booted_at: str
    suspended_at: str
    restart: str
    uptime_s: float
    memory_mb: int
    guest_memory_mb: int
    instances: _containers.RepeatedCompositeFieldContainer[Instance]
    failure: Failure
    engine: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., runtime: _Optional[str] = ..., container: _Optional[str] = ..., source: _Optional[str] = ..., home: _Optional[str] = ..., host_package: _Optional[str] = ..., generation: _Optional[str] = ..., gpu_mode: _Optional[str] = ..., gpu_reason: _Optional[str] = ..., owner: _Optional[str] = ..., created_at: _Optional[str] = ..., started_at: _Optional[str] = ..., booted_at: _Optional[str] = ..., suspended_at: _Optional[str] = ..., restart: _Optional[str] = ..., uptime_s: _Optional[float] = ..., memory_mb: _Optional[int] = ..., guest_memory_mb: _Optional[int] = ..., instances: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., engine: _Optional[str] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("number", "adb", "webrtc_device_id", "vsock_cid", "vm_pid", "ports", "guest_memory_mb")
    class PortsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ADB_FIELD_NUMBER: _ClassVar[int]
    WEBRTC_DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    VSOCK_CID_FIELD_NUMBER: _ClassVar[int]
    VM_PID_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    GUEST_MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    number: int
    adb: str
    webrtc_device_id: str
    vsock_cid: int
    vm_pid: int
    ports: _containers.ScalarMap[str, int]
    guest_memory_mb: int
    def __init__(self, number: _Optional[int] = ..., adb: _Optional[str] = ..., webrtc_device_id: _Optional[str] = ..., vsock_cid: _Optional[int] = ..., vm_pid: _Optional[int] = ..., ports: _Optional[_Mapping[str, int]] = ..., guest_memory_mb: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("phase", "brief")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    phase: str
    brief: str
    def __init__(self, phase: _Optional[str] = ..., brief: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "brief", "details", "resolution", "exit_code")
    CODE_FIELD_NUMBER: _ClassVar[int]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    code: str
    brief: str
    details: str
    resolution: str
    exit_code: int
    def __init__(self, code: _Optional[str] = ..., brief: _Optional[str] = ..., details: _Optional[str] = ..., resolution: _Optional[str] = ..., exit_code: _Optional[int] = ...) -> None: ...
