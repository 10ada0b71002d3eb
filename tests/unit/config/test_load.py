"""A configuration is accepted or refused as a whole, and every problem is told at once."""

import tomllib
from pathlib import Path

import pytest

from streamd.config.fields import NAME_RULE
from streamd.config.load import load
from streamd.config.model import DEFAULT_POLICY, Config, LocalConfig
from streamd.config.toml import to_toml
from streamd.errors import ConfigInvalid

GOOD = """\
timezone = "UTC"
[vault]
url = "https://account.blob.core.windows.net/container/prefix/"
auth = "sas"
sas_file = "/etc/streamd/sas"
[local]
path = "/var/lib/streamd/local"
keep = "48h"
max_size = "200GiB"
min_free = "10%"
[sources.web]
paths = ["/srv/www/", "/etc"]
exclude = ["*.tmp", "cache/"]
policy = "gold"
rpo = "2s"
max_file_size = "1GiB"
[policies.gold]
continuous = "48h"
hourly = 168
keep_deleted = "90d"
[metrics]
listen = "[::1]:9464"
[pipeline]
memory_limit = "256MiB"
compression = "zstd:3"
[[bandwidth]]
days = "mon-fri"
from = "08:00"
to = "18:00"
upload = "5MiB/s"
"""


def write(directory: Path, text: str, **more: str) -> str:
    file = directory / "streamd.toml"
    file.write_text(text, "utf-8")
    for name, content in more.items():
        (directory / "conf.d").mkdir(exist_ok=True)
        (directory / "conf.d" / f"{name}.toml").write_text(content, "utf-8")
    return str(file)


def problems(directory: Path, text: str, **more: str) -> list[str]:
    """Return the problems with the directory's name taken off."""
    with pytest.raises(ConfigInvalid) as caught:
        load(write(directory, text, **more))
    return [problem.removeprefix(f"{directory}/") for problem in caught.value.problems]


def test_the_example_of_the_contract_is_read(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert config.vault.url == "https://account.blob.core.windows.net/container/prefix"
    assert config.vault.directory is None
    assert config.local == LocalConfig(
        path="/var/lib/streamd/local", keep_seconds=172_800, max_size_bytes=200 << 30, min_free=0.1
    )
    web = config.sources["web"]
    assert web.paths == ("/srv/www", "/etc")
    assert web.path_bytes == (b"/srv/www", b"/etc")
    assert (web.rpo_seconds, web.max_file_size_bytes) == (2, 1 << 30)
    assert config.policy_of("web").keep_deleted_seconds == 90 * 86_400
    assert config.metrics.address == ("::1", 9464)
    assert config.pipeline.memory_limit_bytes == 256 << 20
    window = config.bandwidth[0]
    assert (window.days, window.start_minute, window.end_minute) == ((0, 1, 2, 3, 4), 480, 1080)
    assert window.upload_bytes_per_second == 5 << 20


def test_a_source_alone_is_a_configuration(tmp_path: Path) -> None:
    config = load(write(tmp_path, '[sources.a]\npaths = ["/data"]\n'))
    assert config.vault.directory == "/srv/vault"
    assert config.local is None
    assert config.policy_of("a") is DEFAULT_POLICY
    assert config.metrics.address == ("127.0.0.1", 9464)


def test_a_policy_called_default_replaces_the_built_in_one(tmp_path: Path) -> None:
    text = '[sources.a]\npaths = ["/data"]\n[policies.default]\ndaily = 3\n'
    assert load(write(tmp_path, text)).policy_of("a").daily == 3


def test_conf_d_is_merged_in_lexical_order(tmp_path: Path) -> None:
    second = '[[bandwidth]]\nupload = "1MiB/s"\n[sources.db]\npaths = ["/db"]\n'
    first = '[pipeline]\ncompression = "lz4"\n[[bandwidth]]\nupload = "2MiB/s"\n'
    config = load(write(tmp_path, "[pipeline]\nmemory_limit = '64MiB'\n", b=second, a=first))
    assert config.pipeline.compression == "lz4"
    assert config.pipeline.memory_limit_bytes == 64 << 20
    assert [w.upload_bytes_per_second for w in config.bandwidth] == [2 << 20, 1 << 20]
    assert list(config.sources) == ["db"]
    assert str(config.places.find(("sources", "db", "paths"))).endswith("conf.d/b.toml:4")


def test_a_key_set_twice_is_an_error_that_names_both_places(tmp_path: Path) -> None:
    found = problems(tmp_path, "[metrics]\nlisten = 'off'\n", a="[metrics]\nlisten = ''\n")
    assert found == [
        f"conf.d/a.toml:2: metrics.listen: is set already at {tmp_path}/streamd.toml:2"
    ]


def test_all_problems_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    text = """\
[vault]
url = "https://account.blob.core.windows.net/container"
athu = "sas"
[sources.web]
paths = ["/srv/www", "www"]
policy = "gild"
rpo = 15
[sources."Web 2"]
paths = ["/x"]
[policies.gold]
daily = -1
"""
    more = '[pipeline]\ncompression = "zip"\n[[bandwidth]]\nupload = "5"\n[sources.db]\n'
    assert problems(tmp_path, text, x=more) == [
        "streamd.toml:1: local: a vault in a container needs a [local] table for its spool",
        'streamd.toml:3: vault.athu: unknown key; did you mean "auth"?',
        'streamd.toml:5: sources.web.paths[1]: "www" is a relative path: write an absolute one',
        'streamd.toml:6: sources.web.policy: there is no policy "gild"; did you mean "gold"?',
        'streamd.toml:7: sources.web.rpo: write a text with a unit, for example "15s"',
        f'streamd.toml:8: sources."Web 2": {NAME_RULE}',
        "streamd.toml:11: policies.gold.daily: must be at least 0",
        'conf.d/x.toml:2: pipeline.compression: "zip" is none of auto, lz4, zstd:1 … zstd:19, none',
        'conf.d/x.toml:4: bandwidth[0].upload: "5" is not a rate: write for example 5MiB/s',
        "conf.d/x.toml:5: sources.db.paths: is required",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[sources.a]\npaths = []\n", "sources.a.paths: must not be empty"),
        ('[sources.a]\npaths = ["/a/../b"]\n', "no plain path"),
        ('[sources.a]\npaths = ["/a"]\nexclude = ["!"]\n', '"!" is not a gitignore pattern'),
        ('[sources.a]\npaths = ["/a"]\nexclude = ["[z-a]"]\n', "is not a gitignore pattern"),
        ('[sources.a]\npaths = ["/a"]\nexclude_if_present = ["a/b"]\n', "name of a file"),
        ('[sources.a]\npaths = ["/a"]\nkind = "postgres"\n', "is none of filesystem"),
        ('[sources.a]\npaths = ["/a"]\nrpo = "0s"\n', "must be at least 1s"),
        ('[sources.a]\npaths = ["/a/b", "/a"]\n', '"/a" is protected twice: source a has "/a/b"'),
        ('[sources.a]\npaths = ["/a"]\n[sources.b]\npaths = ["/a"]\n', '"/a" is protected twice'),
        ('[sources.a]\npaths = ["/a"]\n[sources.b]\npaths = ["/a/b"]\n', "is protected twice"),
        ('[sources.a]\npaths = ["/srv"]\n', 'streamd\'s own "/srv/vault" (vault.url)'),
        ('[sources.a]\npaths = ["/srv/vault/x"]\n', "contain one another"),
        ('[sources.a]\npaths = ["/var/lib"]\n', 'streamd\'s own "/var/lib/streamd" (daemon.state)'),
        ('[vault]\nurl = "srv/vault"\n', "neither a file:/// nor an https:// URL"),
        ('[vault]\nurl = "file:///"\n', "cannot be the root directory"),
        ('[vault]\nurl = "file://host/x"\n', "names a host"),
        ('[vault]\nurl = "http://example.com/a/b"\n', "is not encrypted"),
        ('[vault]\nurl = "https://a.blob.core.windows.net"\n', "names no container"),
        ('[vault]\nurl = "http://127.0.0.1:10000/account"\n', "names no container"),
        ('[vault]\nauth = "sas"\n', '"sas" needs sas_file'),
        ('[vault]\nauth = "service-principal"\n', "needs certificate_file or client_secret_file"),
        ('[vault]\nauth = "sasl"\n', 'did you mean "sas"?'),
        ('[vault]\nsas_file = "/s"\nsas_credential = "s"\n', "choose one of them"),
        ('[vault]\nurl = "file:///v"\n[local]\npath = "/v"\n', "the vault itself is there"),
        ('[local]\nmin_free = "110%"\n', "is not a percentage"),
        ('[local]\nkeep_seconds = "5s"\n', "unknown key"),
        ('[metrics]\nlisten = "9464"\n', "is not an address and port"),
        ('[pipeline]\nmemory_limit = "1MiB"\n', "must be at least 64MiB"),
        ('[pipeline]\ncompression = "zstd:20"\n', "is none of"),
        ('[[bandwidth]]\nupload = "1MiB/s"\ndays = "mon-fry"\n', "is not a set of days"),
        ('[retention]\ninterval = "1s"\n', "must be at least 1m"),
        ('timezone = "Mars/Base"\n', "is not a known time zone"),
        ("[sources]\na = 1\n", "is a table: write [sources.a]"),
        ("daemon = 3\n", "is a table: write [daemon]"),
        ('[sources.a]\npaths = "/x"\n', "sources.a.paths"),
        ("[vault\n", "streamd.toml:1: "),
        ("a = \n", "streamd.toml:1: "),
        ('a = """', "at the end of the file"),
        ("[daemon]\nstate = '/a'\nstate = '/b'\n", "streamd.toml:3: "),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert any(expected in problem for problem in found), found
    assert len(found) == 1 or "service-principal" in text, found


def test_files_that_cannot_be_read_are_problems(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load(str(tmp_path / "none.toml"))
    assert caught.value.problems == (
        f"{tmp_path}/none.toml:1: cannot be read: No such file or directory",
    )
    (tmp_path / "streamd.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigInvalid) as caught:
        load(str(tmp_path / "streamd.toml"))
    assert caught.value.problems == (f"{tmp_path}/streamd.toml:1: byte 5 is not UTF-8",)


@pytest.mark.parametrize(
    "text",
    [
        '[vault]\nurl = "https://a.blob.core.windows.net/cont?sv=1&sig=MARKER"\n',
        '[vault]\nurl = "https://user:MARKER@host.example/cont"\n',
        '[vault]\nproxy = "http://user:MARKER@proxy"\n',
        '[vault]\nsas_token = "MARKER"\n',
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    found = problems(tmp_path, text)
    assert found
    assert "MARKER" not in "".join(found)


def test_what_is_shown_reads_back_as_the_same_configuration(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    shown = to_toml(config.written())
    tomllib.loads(shown)
    assert load(write(tmp_path, shown)) == config


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        Config().timezone = "UTC"


def test_addresses_of_an_emulator_name_the_container_second(tmp_path: Path) -> None:
    text = '[vault]\nurl = "http://127.0.0.1:10000/account/cont/p"\n[local]\n'
    assert load(write(tmp_path, text)).vault.url == "http://127.0.0.1:10000/account/cont/p"
