"""What is asked of aiortc beyond its public interface, in one place: passing encoded frames through.

Nothing here is for decoding. aiortc's receivers hand their frames to a decoder; ours returns them as they came.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, cast

from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
    rtcrtpsender,
)
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpSrPacket,
    pack_remb_fci,
    unpack_remb_fci,
)
from aiortc.sdp import SessionDescription
from msgspec import UNSET

from cfctl.relay.media.frames import Frame
from cfctl.wire import rtc, vp8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiortc import RTCRtpReceiver, RTCRtpTransceiver
    from aiortc.jitterbuffer import JitterFrame
    from aiortc.rtcrtpparameters import RTCRtpCodecCapability, RTCRtpCodecParameters
    from aiortc.rtp import AnyRtcpPacket

    from cfctl.wire.webrtc_messages import IceServer

#: Packets that can be sent once more: what 15 Mbit/s are in half a second, and a key frame as a whole. aiortc itself
#: has 128, which is less than many a key frame.
_AGAIN = 1024

#: Connections on their way to their end.
_closing: set[asyncio.Future[None]] = set()


class _PassThrough:
    """Stands where aiortc has a decoder."""

    def __init__(self, codec: RTCRtpCodecParameters) -> None:
        self._vp8 = codec.name.upper() == "VP8"

    def decode(self, frame: JitterFrame) -> list[Frame]:
        """Return the frames as they came."""
        return [Frame(data, at, not self._vp8 or vp8.is_key(data)) for data, at in rtc.whole(frame)]


def install() -> None:
    """Have this process pass frames through; it decodes none from now on."""
    rtc.gather_loopback()
    rtc.take_frames(_PassThrough)
    cast(Any, rtcrtpsender).RTP_HISTORY_SIZE = _AGAIN


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
