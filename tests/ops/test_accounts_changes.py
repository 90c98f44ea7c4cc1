"""``flask accounts add`` and ``remove``: the file afterwards, byte for byte."""

import tomllib

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import create_app
from app.config import load_settings
from app.ops.accounts_changes import _checked
from app.ops.accounts_editing import with_account, without_account
from app.simulator.server import Simulator

BEFORE = """# ours
[[account]]
name = "first"  # the old one
kind = "api_key"
api_key = "first-key"

# the new one,
# for tests
[[account]]
name = "second"
kind = "api_key"
api_key = "second-key"
"""


@pytest.fixture
def simulator():
    simulator = Simulator(pace=0)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "accounts.toml"


@pytest.fixture
def settings(tmp_path):
    return load_settings({"STATE_URL": "memory://"}, tmp_path)


@pytest.fixture
def run(tmp_path, simulator):
    def run(*words, given=None, **environ):
        base = {"GEMINI_BASE_URL": simulator.base_url, "STATE_URL": "memory://"}
        settings = load_settings({**base, **environ}, tmp_path)
        runner = create_app(settings).test_cli_runner()
        return runner.invoke(args=["accounts", *words], input=given)

    return run


def test_the_first_account(run, path):
    result = run("add", "work", "--model", "gemini-3*", "--concurrency", "4", given="good-key\n")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0].startswith("work works: ")
    assert result.output.splitlines()[1:] == [f"work is in {path}."]
    assert path.read_text() == (
        '[[account]]\nname = "work"\nkind = "api_key"\napi_key = "good-key"\n'
        'models = ["gemini-3*"]\nconcurrency = 4\n'
    )
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_there_stays(run, path):
    path.write_text(BEFORE)
    result = run("add", "third", "--key-variable", "THIRD", THIRD="third-key")
    assert result.exit_code == 0, result.output
    assert path.read_text() == (
        BEFORE + '\n[[account]]\nname = "third"\nkind = "api_key"\napi_key = "${THIRD}"\n'
    )


def test_a_key_that_does_not_work_is_not_written(run, path, simulator):
    simulator.script("bad-key", ["key-invalid"] * 2, on=["models"])
    result = run("add", "bad", given="bad-key\n")
    assert result.exit_code == 1
    assert "bad was not written, since it does not work: API key not valid" in result.output
    assert "bad-key" not in result.output
    assert not path.exists()
    assert run("add", "bad", "--no-check", given="bad-key\n").exit_code == 0
    assert 'api_key = "bad-key"' in path.read_text()


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        (
            ["first"],
            "x\n",
            "Error: account 'first': name is the name of the account in line 3, too",
        ),
        (["new", "--kind", "oauth"], "", "Error: account 'new': credentials is missing"),
        (
            ["new", "--location", "Europe!"],
            "x\n",
            "Error: account 'new': location must be a location",
        ),
        (
            ["new"],
            " \n",
            "Error: no API key came: type it, send a line with it to standard input, or name a "
            "variable with --key-variable\n",
        ),
        (["key-1"], "x\n", "key-1 is an account of ACCOUNTS_TOML or GEMINI_API_KEYS"),
    ],
)
def test_what_can_not_be_is_refused_and_changes_nothing(run, path, words, given, said):
    path.write_text(BEFORE)
    result = run("add", *words, "--no-check", given=given, GEMINI_API_KEYS="bare")
    assert result.exit_code == 1
    assert said in result.output
    assert path.read_text() == BEFORE


def test_a_mistake_in_the_file_is_told_with_its_line(settings, path):
    """Only somebody who edits it while the command runs sees this: it refuses the start, too."""
    path.write_text(BEFORE.replace('"second"', '"first"'))
    with pytest.raises(click.ClickException) as caught:
        _checked(settings, path, path.read_text(), lines=12)
    assert caught.value.message == (
        f"{path} line 10: account 'first': name is the name of the account in line 3, too"
    )


def test_an_account_that_has_yet_to_log_in(run, path):
    result = run("add", "me", "--kind", "oauth", "--credentials", "secrets/me.json")
    assert result.output.splitlines() == [
        f"me is in {path}.",
        "Log it in: flask accounts login me --client-file FILE",
    ]


def test_remove(run, path):
    path.write_text(BEFORE)
    assert run("remove", "first").output == f"first is no longer in {path}.\n"
    assert path.read_text() == BEFORE[BEFORE.index("# the new one") :].join(["# ours\n\n", ""])
    assert run("remove", "second").exit_code == 0
    assert path.read_text() == "# ours\n\n# the new one,\n# for tests\n"


def test_remove_of_a_stranger(run, path):
    path.write_text(BEFORE)
    result = run("remove", "nobody")
    assert result.exit_code == 2
    assert f"{path} has no account 'nobody'; it has: first, second" in result.output


def test_an_inline_list_is_left_to_people(run, path):
    text = 'account = [{name = "a", kind = "api_key", api_key = "k"}]\n'
    path.write_text(text)
    result = run("remove", "a")
    assert result.exit_code == 1
    assert "a can't be told apart" in result.output
    assert path.read_text() == text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_is_quoted_right(value):
    text = with_account("", {"name": value, "list": [value, value], "number": 7})
    assert tomllib.loads(text) == {
        "account": [{"name": value, "list": [value, value], "number": 7}]
    }


@given(st.integers(0, 4), st.integers(1, 5))
def test_removing_one_of_many_leaves_the_others(number, count):
    text = ""
    for each in range(count):
        text = with_account(text, {"name": f"a{each}"})
    if number >= count:
        with pytest.raises(IndexError):
            without_account(text, number)
        return
    left = tomllib.loads(without_account(text, number)).get("account", [])
    assert left == [{"name": f"a{each}"} for each in range(count) if each != number]
