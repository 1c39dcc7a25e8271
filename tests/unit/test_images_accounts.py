"""Who we are to a registry, and what the administrator says about it: files, helpers, challenges."""

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import challenges, credentials, helpers, registries
from tinyo_runtime.images.credentials import Credential
from tinyo_runtime.images.reference import Reference

SECRET = "s3cret-word"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has nothing."""
    for name in ("DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def auth(user: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, **content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def user(home: Path, reference: str) -> str | None:
    found = asyncio.run(credentials.find(home / "auth.json", Reference.parse(reference)))
    return (found.user or f"token {found.token}") if found else None


def failure(home: Path) -> TinyoError:
    with pytest.raises(TinyoError) as caught:
        user(home, "r.test/a/b")
    assert caught.value.reason == "REGISTRY_MISCONFIGURED"
    assert SECRET not in str(caught.value) + repr(caught.value.__cause__) + str(caught.value.metadata)
    return caught.value


def helper(home: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = home / "bin/docker-credential-demo"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_own_login_comes_before_podmans_and_that_before_dockers(home: Path) -> None:
    found = []
    files = (".docker/config.json", ".config/containers/auth.json")
    for number, name in enumerate(
        (*(f"home/{file}" for file in files), "run/containers/auth.json", "auth.json")
    ):
        write(home / name, auths={"r.test": auth(f"u{number}")})
        found.append(user(home, "r.test/a"))
    assert found == ["u0", "u1", "u2", "u3"]
    assert user(home, "other.test/a") is None


def test_folders_of_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "d/config.json", auths={"r.test": auth("docker")})
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "d"))
    assert user(home, "r.test/a") == "docker"
    write(home / "x/containers/auth.json", auths={"r.test": auth("podman")})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "x"))
    assert user(home, "r.test/a") == "podman"


def test_the_longest_beginning_of_a_repository_counts(home: Path) -> None:
    keys = ("r.test", "r.test/a", "r.test/a/b", "r.test:5000")
    write(home / "auth.json", auths={key: auth(key.replace(":", "-")) for key in keys})
    wanted = {
        "r.test/x": "r.test",
        "r.test/a/x": "r.test/a",
        "r.test/ab": "r.test",
        "r.test/a/b": "r.test/a/b",
        "r.test/a/b/c:1": "r.test/a/b",
        "r.test:5000/a": "r.test-5000",
        "r.test:5001/a": None,
    }
    assert {reference: user(home, reference) for reference in wanted} == wanted


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_docker_hub_has_several_names(home: Path, key: str) -> None:
    write(home / "home/.docker/config.json", auths={key: auth("me")})
    assert user(home, "alpine") == user(home, "docker.io/me/app") == "me"
    assert user(home, "r.test/alpine") is None


def test_keys_as_older_programs_wrote_them(home: Path) -> None:
    write(
        home / "auth.json", auths={"https://r.test/v1/": auth("me"), "evil.test/https://x.test": auth("no")}
    )
    assert user(home, "r.test/a") == "me"
    assert user(home, "x.test/a") is None


def test_other_forms_of_an_entry(home: Path) -> None:
    plain = {"username": "me", "password": SECRET}
    tokens = {"identitytoken": "t", **auth("<token>", "x")}
    write(
        home / "auth.json",
        auths={"a.test": plain, "b.test": tokens, "c.test": {}, "d.test": auth("me", f"{SECRET}:x\0\0")},
    )
    assert [user(home, f"{name}.test/x") for name in "abc"] == ["me", "token t", None]
    found = asyncio.run(credentials.find(home / "auth.json", Reference.parse("d.test/x")))
    assert found == Credential("me", f"{SECRET}:x") and SECRET not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"auths": {{"r.test": {{"auth": "{SECRET}!"}}}}}}',
        f'{{"auths": {{"r.test": {{"auth": "{base64.b64encode(SECRET.encode()).decode()}"}}}}}}',
        '{"auths": {"r.test": []}}',
        f'{{"auths": "{SECRET}"}}',
        f'{{"{SECRET}',
        f'["{SECRET}"]',
        "[" * 100_000,
        f'{{"credsStore": ["{SECRET}"]}}',
        " " * (credentials.MAX_FILE + 1),
    ],
)
def test_a_broken_file_is_named_and_not_shown(home: Path, text: str) -> None:
    (home / "auth.json").write_text(text)
    assert str(home / "auth.json") in failure(home).message


def test_a_helper_is_asked_for_the_registry(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = f'{{"ServerURL": "x", "Username": "\'$server\'", "Secret": "{SECRET}"}}'
    helper(home, monkeypatch, f"server=$(cat)\n[ $1 = get ] && echo '{answer}'")
    config = home / "home/.docker/config.json"
    write(config, credHelpers={"r.test:5000": "demo"}, auths={"r.test": auth("file")})
    assert user(home, "r.test:5000/a/b") == "r.test:5000"
    assert user(home, "r.test/a/b") == "file"
    write(config, credsStore="demo", auths={"r.test": {}})
    assert user(home, "r.test/a") == "r.test"
    assert user(home, "alpine") == "https://index.docker.io/v1/"


def test_a_helper_without_an_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "echo credentials not found in native keychain; exit 1")
    write(home / "home/.docker/config.json", credsStore="demo", auths={"r.test": auth("file")})
    assert user(home, "r.test/a") == "file"
    assert user(home, "other.test/a") is None


def test_a_helper_may_have_a_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, """echo '{"Username": "<token>", "Secret": "t"}'""")
    write(home / "home/.docker/config.json", credsStore="demo")
    assert user(home, "r.test/a") == "token t"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f"echo {SECRET}; echo {SECRET} >&2; exit 3", "docker-credential-demo failed with status 3"),
        (f"echo {SECRET}", "docker-credential-demo does not answer with a JSON object"),
        (f"""echo '{{"Secret": "{SECRET}"}}'""", "without a Username and a Secret"),
        ("yes", f"more than {helpers.MAX_ANSWER} bytes"),
        ("exec sleep 60", "docker-credential-demo did not answer within 0.2 seconds"),
        ("sleep 60 & sleep 60", "docker-credential-demo did not answer"),
    ],
)
def test_a_helper_that_fails_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(helpers, "LIMIT", 0.2)
    helper(home, monkeypatch, script)
    config = write(home / "home/.docker/config.json", credsStore="demo")
    message = failure(home).message
    assert why in message and str(config) in message


@pytest.mark.parametrize("name", ["nothere", "../demo", "a b", "-x", "x" * 100])
def test_a_helper_that_is_not_there(home: Path, name: str) -> None:
    write(home / "home/.docker/config.json", credsStore=name)
    assert name[:64] in failure(home).message


def test_a_helper_that_cannot_be_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "")
    (home / "bin/docker-credential-demo").write_text("#!/nowhere\n")
    write(home / "home/.docker/config.json", credsStore="demo")
    assert "docker-credential-demo cannot be started" in failure(home).message


def test_challenges() -> None:
    header = 'Negotiate, BEARER realm="https://a.test/t?x=\\"1\\"", service=s,scope="a,b", Basic realm="x, y"'
    assert challenges.parse(header) == {
        "negotiate": {},
        "bearer": {"realm": 'https://a.test/t?x="1"', "service": "s", "scope": "a,b"},
        "basic": {"realm": "x, y"},
    }


@given(st.text(alphabet='Bearer realm="\\,=x ', max_size=60) | st.text(max_size=40))
def test_any_challenge_is_understood_or_passed_over(header: str) -> None:
    for fields in challenges.parse(header).values():
        assert all(isinstance(value, str) for value in fields.values())


def said(home: Path, text: str) -> registries.Registries:
    (home / "registries.toml").write_text(text)
    return registries.load(home)


def test_registries(home: Path) -> None:
    found = said(
        home,
        '["docker.io"]\nmirrors = ["m.test", "c.test:5000/hub/x", "[::1]:80"]\n["c.test:5000"]\ninsecure = true\n',
    )
    assert [str(mirror) for mirror in found.mirrors(Reference.parse("alpine"))] == [
        "m.test/library/alpine:latest",
        "c.test:5000/hub/x/library/alpine:latest",
        "[::1]:80/library/alpine:latest",
    ]
    assert not list(found.mirrors(Reference.parse("m.test/alpine")))
    assert found.insecure == {"c.test:5000"}
    assert registries.load(home / "nothing").tables == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "Expected '=' after a key"),
        ("\xff", "registries.toml: "),
        ('["a/b"]', "'a/b' is no registry"),
        ('["a.test:99999"]', "'a.test:99999' is no registry"),
        ('["docker.io"]\n["index.docker.io"]', "index.docker.io: docker.io is there twice"),
        ('"a.test" = 1', 'a.test: write ["a.test"]'),
        (
            '["a.test"]\nmirror = []',
            "a.test: unknown key 'mirror'; there are: insecure, mirrors, ca, cert, key",
        ),
        ('["a.test"]\ninsecure = "yes"', "a.test: insecure: write true or false"),
        ('["docker.io"]\ninsecure = true', "docker.io: insecure: Docker Hub has TLS"),
        ('["a.test"]\nmirrors = "m.test"', "a.test: mirrors: write a list"),
        ('["a.test"]\nmirrors = [1]', "a.test: mirrors: write a list"),
        ('["a.test"]\nmirrors = ["https://m.test"]', "a.test: mirrors: 'https://m.test' is no mirror"),
        ('["a.test"]\nmirrors = ["m.test/X"]', "a.test: mirrors: 'm.test/X' is no mirror"),
        ('["a.test"]\nmirrors = ["m.test/x:1"]', "'m.test/x:1' is no mirror"),
        ('["a.test"]\nmirrors = [""]', "a.test: mirrors: '' is no mirror"),
        ('["a.test"]\nmirrors = ["a.test"]', "'a.test' is the registry itself"),
        ('["a.test"]\nca = 1', "a.test: ca: write the path"),
        ('["a.test"]\nca = "x.pem"', "a.test: ca: 'x.pem' is no absolute path"),
        ('["a.test"]\nca = "/nowhere"', "a.test: ca: /nowhere: No such file"),
        ('["a.test"]\nca = "/etc/hostname"', "a.test: ca: /etc/hostname has no certificates"),
        ('["a.test"]\nca = "/nowhere"\ninsecure = true', "a.test: insecure: ca is of no use"),
        ('["a.test"]\ncert = 1', "a.test: cert: write the path"),
        ('["a.test"]\ncert = "/x"', "a.test: cert: write key as well"),
        ('["a.test"]\nkey = "/x"', "a.test: key: write cert as well"),
        ('["a.test"]\ncert = "/x"\nkey = "x"', "a.test: key: 'x' is no absolute path"),
        ('["a.test"]\ncert = "/nowhere"\nkey = "/x"', "a.test: cert: /nowhere with /x: No such file"),
        (
            '["a.test"]\ncert = "/etc/hostname"\nkey = "/etc/hostname"',
            "a.test: cert: /etc/hostname with /etc/hostname is no certificate and its key in PEM form",
        ),
    ],
)
def test_what_is_wrong_with_registries_is_said_with_its_place(home: Path, text: str, why: str) -> None:
    with pytest.raises(SystemExit) as caught:
        (home / "registries.toml").write_bytes(text.encode("latin-1"))
        registries.load(home)
    assert str(caught.value).startswith(f"{home}/registries.toml: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("https://r.test:5000/v2/", "r.test:5000"),
        ("localhost", "localhost"),
        ("[::1]:5000", "[::1]:5000"),
        ("myhost", "myhost"),
    ],
)
def test_names_of_registries(written: str, name: str) -> None:
    assert registries.name(written) == name


@pytest.mark.parametrize("written", ["", " ", "r.test/team", "a b", "r.test:x", "\x1b[2J", "-", "r.test@x"])
def test_names_that_are_none(written: str) -> None:
    with pytest.raises(TinyoError) as caught:
        registries.name(written)
    assert caught.value.reason == "LOGIN_INVALID" and caught.value.message.isprintable()
