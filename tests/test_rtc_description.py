"""Parameters in the text of a session description, and the check of aiortc's inside."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ifaddr
import pytest
from aioice import ice
from aiortc import codecs, rtcrtpreceiver
from hypothesis import given
from hypothesis import strategies as st

from streamgc.errors import CallError, SignallingError
from streamgc.rtc import hook
from streamgc.rtc.description import Parameters, has_video, read_parameters, write_parameters

OURS = Parameters(0, "0123456789abcdef")
TEXT = "v=0\r\ns=-\r\nm=video 9 UDP/TLS/RTP/SAVPF 120 97\r\na=rtpmap:120 SGC/90000\r\na=rtpmap:97 VP8/90000\r\n"


def test_parameters_travel_with_and_without_the_codec() -> None:
    assert read_parameters(TEXT) is None
    written = write_parameters(TEXT, OURS)
    assert "a=rtpmap:120 SGC/90000\r\na=fmtp:120 version=0;model=0123456789abcdef\r\n" in written
    assert read_parameters(written) == OURS
    plain = TEXT.replace("a=rtpmap:120 SGC/90000\r\n", "")
    assert read_parameters(plain) is None
    assert read_parameters(write_parameters(plain, OURS)) == OURS
    assert has_video(plain)
    assert not has_video("m=audio 9\r\n")


@pytest.mark.parametrize(
    "line", ["version=0", "version=0;model=XYZ", "model=0123456789abcdef", "version=99999;model=0"]
)
def test_parameters_that_are_none(line: str) -> None:
    assert read_parameters(TEXT + f"a=fmtp:120 {line}\r\n") is None


@given(st.text(max_size=300))
def test_any_text_is_read_without_harm(text: str) -> None:
    assert read_parameters(text) is None
    assert read_parameters(write_parameters(text, OURS)) in (OURS, None)


def test_a_long_text_is_refused() -> None:
    with pytest.raises(SignallingError, match="longer than"):
        read_parameters("x" * 40_000)


def test_registering_twice_adds_one_codec_and_leaves_others_alone() -> None:
    hook.register()
    hook.register()
    get_decoder: Callable[..., object] = vars(rtcrtpreceiver)["get_decoder"]
    names = [codec.name for codec in codecs.CODECS["video"]]
    assert names.count("SGC") == 1
    assert isinstance(get_decoder(codecs.CODECS["video"][-1]), hook.SgcDecoder)
    vp8 = next(codec for codec in codecs.CODECS["video"] if codec.name == "VP8")
    assert type(get_decoder(vp8)).__name__ == "Vp8Decoder"
    own = [codec.name for codec in hook.preferences(own=True, conventional=False)]
    assert own == ["SGC"]
    assert "SGC" not in [codec.name for codec in hook.preferences(own=False, conventional=True)]


def test_another_aiortc_is_named_instead_of_failing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    hook.check_names()
    monkeypatch.delattr(rtcrtpreceiver.RTCRtpReceiver, "_send_rtcp_pli")
    with pytest.raises(CallError, match=r"not the version .* lacks _send_rtcp_pli"):
        hook.check_names()


def test_a_machine_with_loopback_alone_offers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hook.register()
    monkeypatch.setattr(ifaddr, "get_adapters", list)
    assert ice.get_host_addresses(use_ipv4=True, use_ipv6=True) == ["127.0.0.1"]
    adapter = ifaddr.Adapter("eth0", "eth0", [ifaddr.IP("192.0.2.7", 24, "eth0")], index=1)
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [adapter])
    assert ice.get_host_addresses(use_ipv4=True, use_ipv6=False) == ["192.0.2.7"]


def test_two_peers_connect_where_there_is_only_loopback() -> None:
    isolated = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs unshare and ip")
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("this system allows no network namespaces")
    script = (
        "import asyncio\nfrom tests.test_rtc_connection import pair\n"
        "async def main():\n"
        "    async with pair() as call:\n"
        "        await call.send(20)\n"
        "        print(len(call.shown) > 10)\n"
        "asyncio.run(main())"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [*isolated, sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "True", done.stderr
