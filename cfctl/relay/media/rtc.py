"""What is asked of aiortc beyond its public interface, in one place: passing encoded frames through.

Nothing here is for decoding. aiortc's receivers hand their frames to a decoder; ours returns them as they came. Its
jitter buffer holds a frame back until the next one begins, which for a screen that stands still is never; ours looks
at the mark on the last packet of a frame (RFC 7741 section 4.1).
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import TYPE_CHECKING, Any, cast

from aioice import ice
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
    rtcrtpreceiver,
    rtcrtpsender,
)
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpSrPacket,
    pack_remb_fci,
    unpack_remb_fci,
)
from aiortc.sdp import SessionDescription
from aiortc.utils import uint16_add, uint16_gt
from msgspec import UNSET

from cfctl.relay.media.frames import Frame, is_vp8_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiortc import RTCRtpReceiver, RTCRtpTransceiver
    from aiortc.rtcrtpparameters import RTCRtpCodecCapability, RTCRtpCodecParameters
    from aiortc.rtp import AnyRtcpPacket, RtpPacket

    from cfctl.wire.webrtc_messages import IceServer

_LOOPBACK = "127.0.0.1"

#: How long a packet that was lost is waited for: a retransmission takes one round trip.
_LOST_S = 0.3

#: Packets that can be sent once more: what 15 Mbit/s are in half a second, and a key frame as a whole. aiortc itself
#: has 128, which is less than many a key frame.
_AGAIN = 1024

#: Connections on their way to their end.
_closing: set[asyncio.Future[None]] = set()


class _Frames(JitterFrame):
    """One frame, and those that were complete at the same time."""

    def __init__(self, frames: list[tuple[bytes, int]]) -> None:
        (data, timestamp), *rest = frames
        super().__init__(data, timestamp)
        self.first = timestamp
        self.rest = rest


class _Prompt(JitterBuffer):
    """Lets a frame of video go as soon as its last packet is there, and gives up one that never will be whole."""

    #: Another one in tests.
    clock = staticmethod(time.monotonic)

    def __init__(self, capacity: int, prefetch: int = 0, is_video: bool = False) -> None:  # noqa: FBT001, FBT002
        super().__init__(capacity, prefetch, is_video)
        self._newest: int | None = None
        #: Packets from the first one on that lack none between them.
        self._whole = 0
        #: The packet that is missed, and since when.
        self._missed: tuple[int, float] | None = None

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        lost, frame = super().add(packet)
        if not self._is_video:
            return lost, frame
        if lost or self._newest is None or uint16_gt(packet.sequence_number, self._newest):
            self._newest = packet.sequence_number
        if frame is not None or lost or not self._overdue():
            return lost, frame
        # aiortc would wait for as many packets more as its buffer has places: minutes, on a screen that stands still.
        if self.smart_remove(self._whole + 1):
            self._origin = uint16_add(self._newest, 1)
        self._missed = None
        return True, self._remove_frame(packet.sequence_number)

    def _overdue(self) -> bool:
        """Tell whether a packet is missed for longer than a retransmission takes."""
        first = uint16_add(cast(int, self._origin), self._whole)
        if not uint16_gt(cast(int, self._newest), first):
            self._missed = None
            return False
        if self._missed is None or self._missed[0] != first:
            self._missed = first, self.clock()
        return self.clock() - self._missed[1] > _LOST_S

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        if not self._is_video:
            return super()._remove_frame(sequence_number)
        frames: list[tuple[bytes, int]] = []
        packets: list[Any] = []
        complete = self._whole = 0
        for count in range(self.capacity):
            packet: RtpPacket | None = self._packets[(cast(int, self._origin) + count) % self._capacity]
            if packet is None:
                break
            self._whole = count + 1
            if packets and packet.timestamp != packets[0].timestamp:
                frames.append((b"".join(one._data for one in packets), packets[0].timestamp))
                packets, complete = [], count
            packets.append(packet)
            if packet.marker:
                frames.append((b"".join(one._data for one in packets), packets[0].timestamp))
                packets, complete = [], count + 1
        if complete:
            self.remove(complete)
            self._whole -= complete
        frames = [frame for frame in frames if frame[0]]
        return _Frames(frames) if frames else None


class _PassThrough:
    """Stands where aiortc has a decoder."""

    def __init__(self, codec: RTCRtpCodecParameters) -> None:
        self._vp8 = codec.name.upper() == "VP8"

    def decode(self, frame: JitterFrame) -> list[Frame]:
        """Return the frames as they came."""
        found = [(frame.data, frame.timestamp)]
        if isinstance(frame, _Frames):
            found += [(data, frame.timestamp + (at - frame.first & 0xFFFFFFFF)) for data, at in frame.rest]
        return [Frame(data, at, not self._vp8 or is_vp8_key(data)) for data, at in found]


def install() -> None:
    """Have this process pass frames through; it decodes none from now on."""
    parts = cast(Any, rtcrtpreceiver)
    parts.get_decoder = _PassThrough
    parts.JitterBuffer = _Prompt
    cast(Any, rtcrtpsender).RTP_HISTORY_SIZE = _AGAIN
    addresses = ice.get_host_addresses

    def with_loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:  # noqa: FBT001  aioice's own signature
        # Streamers listen there too, and a host without a network has no other.
        found = list(addresses(use_ipv4, use_ipv6))
        return found if not use_ipv4 or _LOOPBACK in found else [*found, _LOOPBACK]

    cast(Any, ice).get_host_addresses = with_loopback


def connection(servers: Iterable[IceServer] = (), *, offers: bool) -> RTCPeerConnection:
    """Return a peer connection.

    :param servers: for finding a way; without any, none is asked (aiortc itself would ask one on the Internet).
    :param offers: whether this side will make the first offer.
    """
    known = [
        RTCIceServer(
            urls=one.urls,
            username=None if one.username is UNSET else one.username,
            credential=None if one.credential is UNSET else one.credential,
        )
        for one in servers
    ]
    bundle = RTCBundlePolicy.MAX_BUNDLE if offers else RTCBundlePolicy.BALANCED
    return RTCPeerConnection(RTCConfiguration(iceServers=known, bundlePolicy=bundle))


def only_vp8(transceiver: RTCRtpTransceiver) -> None:
    """Have an answer take VP8, which every streamer speaks; between description and answer."""
    codecs = transceiver._codecs
    vp8 = [codec for codec in codecs if codec.name.upper() == "VP8"]
    if vp8:
        rtx = [codec for codec in codecs if codec.parameters.get("apt") == vp8[0].payloadType]
        transceiver._codecs = [vp8[0], *rtx]


class Receiving:
    """What one receiver hears, and how it is answered.

    :param lost: called when part of the stream is lost: what follows cannot be shown before a key frame.
    :param limit: returns the bits per second that the device may be told at most; None is whatever arrives.
    """

    def __init__(self, receiver: RTCRtpReceiver, lost: Callable[[], None], limit: Callable[[], float | None]) -> None:
        self._receiver = receiver
        self._lost = lost
        self._limit = limit
        self._ask = receiver._send_rtcp_pli
        self._send = receiver._send_rtcp
        parts = cast(Any, receiver)
        parts._send_rtcp_pli = self._missed
        parts._send_rtcp = self._report

    async def _missed(self, _ssrc: int) -> None:
        # Not asked for here: all requests are merged.
        self._lost()

    async def _report(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            most = self._limit()
            bitrate, ssrcs = unpack_remb_fci(packet.fci)
            if most is not None and most < bitrate:
                packet.fci = pack_remb_fci(int(most), ssrcs)
        await self._send(packet)

    async def request_key(self) -> None:
        """Ask the sender for a key frame."""
        # One of them is that of retransmissions, and libwebrtc may begin with it: nobody feels asked by that name.
        for source in self._receiver.getSynchronizationSources():
            await self._ask(source.source)


def name_track(track: MediaStreamTrack, stream_id: str) -> None:
    """Give a track the name that browsers look for."""
    cast(Any, track)._id = stream_id


def watch_sender(
    sender: RTCRtpSender,
    stream_id: str,
    *,
    key: Callable[[], None],
    heard: Callable[[], None],
    measured: Callable[[float], None],
) -> None:
    """Hear what a viewer says of one track.

    :param key: called when he asks for a key frame.
    :param heard: called with every sign of life.
    :param measured: called with the bits per second that he gets at most.
    """
    parts = cast(Any, sender)
    parts._stream_id = stream_id
    parts._send_keyframe = key
    before = sender._handle_rtcp_packet

    async def handle(packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            heard()
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            try:
                bitrate, ssrcs = unpack_remb_fci(packet.fci)
            except (ValueError, struct.error):
                return
            if sender._ssrc in ssrcs:
                measured(bitrate)
        await before(packet)

    parts._handle_rtcp_packet = handle


async def offered_again(pc: RTCPeerConnection) -> RTCSessionDescription:
    """Return an offer of what answered before, with the numbers that were agreed upon.

    aiortc would give codecs and extensions its own numbers again, by which the other side, that may not change what
    they mean, sent what nobody here took.
    """
    agreed = {
        transceiver.mid: (transceiver, transceiver._codecs, transceiver._headerExtensions)
        for transceiver in pc.getTransceivers()
        if transceiver.mid is not None
    }
    description = SessionDescription.parse((await pc.createOffer()).sdp)
    for media in description.media:
        if media.rtp.muxId in agreed:
            transceiver, codecs, extensions = agreed[media.rtp.muxId]
            transceiver._codecs, transceiver._headerExtensions = codecs, extensions
            media.rtp.codecs, media.rtp.headerExtensions = codecs, extensions
            media.fmt = [codec.payloadType for codec in codecs]
    return RTCSessionDescription(str(description), "offer")


def take_what_is_brought(pc: RTCPeerConnection) -> None:
    """Have an answer take what an offer would send; between description and answer."""
    for transceiver in pc.getTransceivers():
        if transceiver._offerDirection in ("recvonly", "sendrecv") and transceiver.direction == "sendonly":
            transceiver.direction = "sendrecv"


def take_nothing(pc: RTCPeerConnection) -> None:
    """Have an answer take no media; between description and answer."""
    for transceiver in pc.getTransceivers():
        transceiver.direction = "inactive"


async def closed(pc: RTCPeerConnection) -> None:
    """Close a connection; never hangs, whatever aiortc waits for."""
    # In a task of its own: who is cancelled while he waits would cancel what all others wait for who close it.
    closing = asyncio.ensure_future(pc.close())
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)
    await asyncio.wait({closing}, timeout=5)


def vp8_preferences() -> list[RTCRtpCodecCapability]:
    """Return what is offered for video: VP8, and its retransmissions."""
    capabilities = RTCRtpSender.getCapabilities("video")
    return [codec for codec in capabilities.codecs if codec.name.upper() in ("VP8", "RTX")]
