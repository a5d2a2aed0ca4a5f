"""The launcher's flags, in gflags' dialect."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.guest import gflags, hostflags
from cfctl.guest.gflags import FlagError, HelpWanted, Kind, Values


def parse(*argv: str, **environ: str) -> Values:
    return gflags.parse(gflags.table(), argv, program="launch_cvd", environ=environ)


def test_the_table_is_upstreams() -> None:
    table = gflags.table()
    assert len(table) > 150
    assert (table["daemon"].kind, table["resume"].kind, table["cpus"].default) == (Kind.SWITCH, Kind.BOOL, "4")


@pytest.mark.parametrize("argv", [("-cpus=2",), ("--cpus=2",), ("--cpus", "2"), ("-cpus", "2")])
def test_forms_of_a_string(argv: tuple[str, ...]) -> None:
    assert parse(*argv)["cpus"] == "2"


@pytest.mark.parametrize(
    ("argv", "on"),
    [
        (("--daemon",), True),
        (("--nodaemon",), False),
        (("--daemon=false",), False),
        (("--daemon=True",), True),
        (("--resume",), True),
        (("--noresume",), False),
        (("--resume=0",), False),
    ],
)
def test_forms_of_a_truth_value(argv: tuple[str, ...], on: bool) -> None:
    values = parse(*argv)
    assert values.on(next(iter(values.given))) is on


def test_a_string_that_looks_like_a_switch_eats_what_follows() -> None:
    values = parse("--enable_wifi", "--daemon")
    assert values.given == {"enable_wifi": "--daemon"}
    assert not values.on("daemon")


def test_positional_words_and_what_follows_two_dashes_are_ignored() -> None:
    assert parse("word", "-", "--cpus=2", "--", "--daemon").given == {"cpus": "2"}


def test_lists_are_kept_and_need_an_equals_sign() -> None:
    assert parse("--display=width=1,height=2", "--display=width=3,height=4").lists["display"] == [
        "width=1,height=2",
        "width=3,height=4",
    ]
    with pytest.raises(FlagError, match="needs its value after '='"):
        parse("--display", "width=1,height=2")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("--frobnicate",), "unknown command line flag 'frobnicate'"),
        (("--frobnicate=1", "--other"), "unknown command line flag 'frobnicate'\nunknown command line flag 'other'"),
        (("--cpus",), "flag 'cpus' is missing its argument"),
        (("--num_instances=two",), "illegal value 'two' specified for int32 flag 'num_instances'"),
        (("--num_instances=9999999999",), "illegal value '9999999999' specified for int32 flag 'num_instances'"),
        (("--resume=maybe",), "illegal value 'maybe' specified for bool flag 'resume'"),
        (("--noenable_wifi",), "boolean value (noenable_wifi) specified for string command line flag"),
        (("--fromenv=cpus",), "FLAGS_cpus not found in environment"),
    ],
)
def test_errors(argv: tuple[str, ...], text: str) -> None:
    with pytest.raises(FlagError) as caught:
        parse(*argv)
    assert str(caught.value) == text


@pytest.mark.parametrize("order", [0, 1])
def test_undefok(order: int) -> None:
    words = ["--start_webrtc_sig_server=false", "--undefok=start_webrtc_sig_server,other"]
    assert parse(*(words[::-1] if order else words), "--daemon").given == {"daemon": "true"}


def test_flags_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "flags"
    file.write_text("# remark\n--cpus=3\n--daemon\n")
    assert parse(f"--flagfile={file}").given == {"cpus": "3", "daemon": "true"}
    assert parse("--tryfromenv=cpus,dpi", FLAGS_cpus="5").given == {"cpus": "5"}


def test_help_as_xml() -> None:
    with pytest.raises(HelpWanted) as caught:
        parse("--helpxml")
    assert caught.value.status == 1
    assert caught.value.text.startswith("<?xml")
    names = [flag.findtext("name") for flag in ET.fromstring(caught.value.text).iter("flag")]
    assert "daemon" in names


@given(st.lists(st.text(max_size=12)))
def test_any_command_line_is_read_or_refused(argv: list[str]) -> None:
    with contextlib.suppress(FlagError, HelpWanted):
        parse(*[word for word in argv if "flagfile" not in word])


DEFAULTS: dict[str, str | bool] = {"wait_for_launcher": "5", "print": False}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), ("5", False)),
        (("--wait_for_launcher=0", "-print"), ("0", True)),
        (("-wait-for-launcher", "7", "--noprint"), ("7", False)),
        (("--print=true",), ("5", True)),
    ],
)
def test_the_small_tools_parser(argv: tuple[str, ...], expected: tuple[str, bool]) -> None:
    values = hostflags.parse(DEFAULTS, argv, program="cvd_status")
    assert (values["wait_for_launcher"], values["print"]) == expected


@pytest.mark.parametrize("argv", [("--other",), ("word",), ("--wait_for_launcher",), ("--",)])
def test_the_small_tools_refuse_the_unknown(argv: tuple[str, ...]) -> None:
    with pytest.raises(FlagError):
        hostflags.parse(DEFAULTS, argv, program="cvd_status")
