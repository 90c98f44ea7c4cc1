"""The accounts file: what it means, and every refusal word for word."""

from pathlib import Path

import pytest

from app.pool.account import Account
from app.pool.accounts_file import AccountsError, accounts_from_keys, parse_accounts

FOLDER = Path("/etc/gateway")
ENVIRON = {"TEAM_A_KEY": "AIza-a", "HOST": "proxy.test", "EMPTY": ""}


def parse(text, **options):
    settings = {"source": "accounts.toml", "folder": FOLDER, "environ": ENVIRON, **options}
    return parse_accounts(text, **settings)


def test_the_whole_of_it():
    text = """
# A comment with [[account]] in it.
[[account]]
name = "team-a"
kind = "api_key"
api_key = "${TEAM_A_KEY}"
models = ["gemini-*", "gemma-*"]
concurrency = 3
weight = 2
priority = -1
base_url = "http://127.0.0.1:9999/"
proxy = "socks5h://user:pass@${HOST}:1080"
disabled = true

[[account]]
name = "user"
kind = "oauth"
credentials = "secrets/user.json"
projects = ["proj-1", "proj-2"]

[[account]]
name = "robot"
kind = "service_account"
credentials = "/run/secrets/robot.json"

[[account]]
name = "vertex-adc"
kind = "vertex"
location = "europe-west4"

[[account]]
name = "vertex-express"
kind = "vertex"
api_key = "AQ.x"

[[account]]
name = "assist"
kind = "code_assist"
credentials = "assist.json"
"""
    assert parse(text) == [
        Account(
            "team-a",
            "api_key",
            api_key="AIza-a",
            models=("gemini-*", "gemma-*"),
            concurrency=3,
            weight=2,
            priority=-1,
            base_url="http://127.0.0.1:9999",
            proxy="socks5h://user:pass@proxy.test:1080",
            disabled=True,
        ),
        Account(
            "user",
            "oauth",
            credentials="/etc/gateway/secrets/user.json",
            projects=("proj-1", "proj-2"),
        ),
        Account("robot", "service_account", credentials="/run/secrets/robot.json"),
        Account("vertex-adc", "vertex", location="europe-west4"),
        Account("vertex-express", "vertex", api_key="AQ.x"),
        Account("assist", "code_assist", credentials="/etc/gateway/assist.json", concurrency=1),
    ]


def test_the_base_url_of_the_settings_is_for_the_gemini_api_only():
    text = """
account = [
  {name = "a", kind = "api_key", api_key = "k"},
  {name = "b", kind = "api_key", api_key = "k", base_url = "https://own.test"},
  {name = "c", kind = "vertex"},
]
"""
    urls = [account.base_url for account in parse(text, base_url="http://default.test")]
    assert urls == ["http://default.test", "https://own.test", ""]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "account = []"])
def test_no_account_is_no_mistake(text):
    assert parse(text) == []


KINDS = "api_key, oauth, service_account, vertex, code_assist"


def entry(lines, kind="api_key", key='api_key = "k"'):
    return f'[[account]]\nname = "a"\nkind = "{kind}"\n{key}\n{lines}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[[account]]\nname = "a\n',
            "accounts.toml line 2: is not valid TOML: Illegal character '\\n' (column 10)",
        ),
        (
            '[[account]]\nname = ["a"',
            "accounts.toml is not valid TOML: Unclosed array (at end of document)",
        ),
        (
            '\n[[accounts]]\nname = "a"\n',
            "accounts.toml line 2: 'accounts' is not known here; write [[account]]",
        ),
        ('[account]\nname = "a"\n', "accounts.toml line 1: account must be written as [[account]]"),
        (
            '[[account]]\nkind = "api_key"\napi_key = "k"\n',
            'accounts.toml line 1: account number 1: name is missing; write name = "some-name"',
        ),
        (
            '[[account]]\nname = "a"\n',
            f"accounts.toml line 1: account 'a': kind is missing; write one of {KINDS}",
        ),
        (
            entry("", kind="apikey"),
            f"accounts.toml line 3: account 'a': kind 'apikey' is not known; write one of {KINDS}",
        ),
        (
            entry("concurency = 3"),
            "accounts.toml line 5: account 'a': concurency is not known; did you mean concurrency?",
        ),
        (
            entry("zzz = 3"),
            "accounts.toml line 5: account 'a': zzz is not known; known are name, kind, api_key, "
            "credentials, projects, location, models, concurrency, weight, priority, base_url, "
            "proxy, disabled",
        ),
        (
            entry("", key=""),
            "accounts.toml line 1: account 'a': api_key is missing; "
            'write api_key = "${NAME_OF_A_VARIABLE}"',
        ),
        (
            entry("", key='api_key = "${NOT_SET}"'),
            "accounts.toml line 4: account 'a': api_key needs the environment variable NOT_SET; "
            "set it",
        ),
        (
            entry("", key='api_key = "${EMPTY}"'),
            "accounts.toml line 4: account 'a': api_key needs the environment variable EMPTY; "
            "set it",
        ),
        (
            entry("", key='api_key = "${TEAM_A_KEY"'),
            "accounts.toml line 4: account 'a': api_key has a ${ without a variable's name; "
            "write ${NAME}",
        ),
        (
            entry("", key="api_key = 5"),
            "accounts.toml line 4: account 'a': api_key must be text in quotes, such as \"text\"",
        ),
        (
            entry("", key='api_key = "se cret"'),
            "accounts.toml line 4: account 'a': api_key has a space or a control character in it; "
            "copy it again",
        ),
        (
            entry('credentials = "x.json"'),
            "accounts.toml line 5: account 'a': credentials has no use for kind api_key; remove it",
        ),
        (
            entry("", kind="oauth"),
            "accounts.toml line 4: account 'a': api_key has no use for kind oauth; remove it",
        ),
        (
            entry("", kind="code_assist", key=""),
            "accounts.toml line 1: account 'a': credentials is missing; "
            'write credentials = "FILE.json" for kind code_assist',
        ),
        (
            entry('credentials = "x.json"', kind="vertex"),
            "accounts.toml line 4: account 'a': api_key and credentials exclude each other; "
            "remove one",
        ),
        *[
            (
                entry(f"concurrency = {value}"),
                "accounts.toml line 5: account 'a': concurrency must be a whole number "
                "from 1 to 10000",
            )
            for value in ("0", "-1", "true", "1.5", '"8"', "10001")
        ],
        (
            entry("weight = 0"),
            "accounts.toml line 5: account 'a': weight must be a whole number from 1 to 1000",
        ),
        (
            entry("priority = 5000"),
            "accounts.toml line 5: account 'a': priority must be a whole number from -1000 to 1000",
        ),
        (
            entry('disabled = "false"'),
            "accounts.toml line 5: account 'a': disabled must be true or false, without quotes",
        ),
        (
            entry('models = "gemini-*"'),
            "accounts.toml line 5: account 'a': models must be a list of texts, "
            'such as ["one", "two"]',
        ),
        (
            entry("models = []"),
            "accounts.toml line 5: account 'a': models is empty, so it serves none; "
            "remove it to serve all",
        ),
        (
            entry('models = ["models/gemini-*"]'),
            "accounts.toml line 5: account 'a': models has 'models/gemini-*'; "
            "write it as 'gemini-*'",
        ),
        (
            entry('projects = ["p", "p"]'),
            "accounts.toml line 5: account 'a': projects names one twice; remove one of them",
        ),
        (
            entry('projects = ["p", ""]'),
            "accounts.toml line 5: account 'a': projects has an empty text; remove it",
        ),
        (
            entry('projects = ["my project"]'),
            "accounts.toml line 5: account 'a': projects has 'my project', "
            "which is not a project id",
        ),
        (
            entry('location = "Europe West"'),
            "accounts.toml line 5: account 'a': location must be a location such as global "
            "or europe-west4",
        ),
        (
            entry('base_url = "generativelanguage.googleapis.com"'),
            "accounts.toml line 5: account 'a': base_url must be an address such as "
            "http://host:8080",
        ),
        (
            entry('base_url = "https://host.test/v1beta/"'),
            "accounts.toml line 5: account 'a': base_url must not carry a version; "
            "end it before the version",
        ),
        (
            entry('proxy = "ftp://user:password@host"'),
            "accounts.toml line 5: account 'a': proxy must be an address such as http://host:8080",
        ),
        (
            entry('proxy = "http://host:99999"'),
            "accounts.toml line 5: account 'a': proxy must be an address such as http://host:8080",
        ),
        (
            entry("") + entry("weight = 2"),
            "accounts.toml line 7: account 'a': name is the name of the account in line 2, too",
        ),
        (
            'account = [{name = "a", kind = "api_key"}]',
            "accounts.toml line 1: account 'a': api_key is missing; "
            'write api_key = "${NAME_OF_A_VARIABLE}"',
        ),
    ],
)
def test_refusals(text, message):
    with pytest.raises(AccountsError) as caught:
        parse(text)
    assert str(caught.value) == message
    assert caught.value.mistakes == (message,)


def test_every_mistake_is_named_in_one_line():
    text = entry("weight = 0") + entry("disabled = 1").replace('"a"', '"b"')
    with pytest.raises(AccountsError) as caught:
        parse(text)
    assert str(caught.value) == (
        "accounts.toml line 5: account 'a': weight must be a whole number from 1 to 1000; "
        "accounts.toml line 10: account 'b': disabled must be true or false, without quotes"
    )


def test_secrets_show_nowhere():
    account = parse(entry('proxy = "http://u:hidden@host"', key='api_key = "hidden"'))[0]
    assert "hidden" not in repr(account)


def test_bare_keys():
    assert accounts_from_keys(" x, y,,z ", "http://up.test") == [
        Account("key-1", "api_key", api_key="x", base_url="http://up.test"),
        Account("key-2", "api_key", api_key="y", base_url="http://up.test"),
        Account("key-3", "api_key", api_key="z", base_url="http://up.test"),
    ]
    assert accounts_from_keys(("x",)) == [Account("key-1", "api_key", api_key="x")]
    assert accounts_from_keys("") == []
