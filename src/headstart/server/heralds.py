"""Processes that send: each of them ends, whatever it meets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from headstart import errors

#: Those of apprise that only send over the network: by scheme, where in ``apprise.plugins`` each is.
PLUGINS = {
    **dict.fromkeys(("mailto", "mailtos"), "email.NotifyEmail"),
    **dict.fromkeys(("json", "jsons"), "custom_json.NotifyJSON"),
    **dict.fromkeys(("xml", "xmls"), "custom_xml.NotifyXML"),
    **dict.fromkeys(("form", "forms"), "custom_form.NotifyForm"),
    **dict.fromkeys(("ntfy", "ntfys"), "ntfy.NotifyNtfy"),
    **dict.fromkeys(("gotify", "gotifys"), "gotify.NotifyGotify"),
    **dict.fromkeys(("workflow", "workflows"), "workflows.NotifyWorkflows"),
    **dict.fromkeys(("matrix", "matrixs"), "matrix.NotifyMatrix"),
    **dict.fromkeys(("mmost", "mmosts"), "mattermost.NotifyMattermost"),
    **dict.fromkeys(("rocket", "rockets"), "rocketchat.NotifyRocketChat"),
    **dict.fromkeys(("signal", "signals"), "signal_api.NotifySignalAPI"),
    **dict.fromkeys(("apprise", "apprises"), "apprise_api.NotifyAppriseAPI"),
    **dict.fromkeys(("nctalk", "nctalks"), "nextcloudtalk.NotifyNextcloudTalk"),
    "slack": "slack.NotifySlack",
    "discord": "discord.NotifyDiscord",
    "zulip": "zulip.NotifyZulip",
    "gchat": "google_chat.NotifyGoogleChat",
    "tgram": "telegram.NotifyTelegram",
    "pover": "pushover.NotifyPushover",
    "pagerduty": "pagerduty.NotifyPagerDuty",
    "opsgenie": "opsgenie.NotifyOpsgenie",
    "wxteams": "webexteams.NotifyWebexTeams",
    "pbul": "pushbullet.NotifyPushBullet",
}
SECONDS = 60.0
#: At a time, of each server process: each takes about 100 MB.
_MOST = 2
_ROOM_SECONDS = 10.0
_room = threading.BoundedSemaphore(_MOST)


def refusal(url: str) -> str:
    """Why it is not even tried; empty: it is."""
    if scheme(url) in PLUGINS:
        return ""
    return f"No address of a kind that can be told: one of {', '.join(sorted(PLUGINS))}."


def scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def check(urls: Sequence[str]) -> list[str]:
    """Of each why it is no address; empty: it is one. Raises ``TooOften``."""
    found = [refusal(url) for url in urls]
    return found if any(found) else _ask(urls, {"check": True})


def send(urls: Sequence[str], title: str, body: str, *, private: bool) -> list[str]:
    """Of each why it did not take it; empty: it did. ``private``: it may lead anywhere. Raises ``TooOften``."""
    return _ask(urls, {"title": title, "body": body, "private": private})


def _ask(urls: Sequence[str], asked: dict[str, Any]) -> list[str]:
    if not _room.acquire(timeout=_ROOM_SECONDS):
        raise errors.TooOften("Others are being told just now. Try again.", seconds=30)
    try:
        return _run(urls, asked)
    finally:
        _room.release()


def _run(urls: Sequence[str], asked: dict[str, Any]) -> list[str]:
    command = [sys.executable, "-P", "-m", "headstart.server.herald"]
    # No secret of the server's environment is there to be found.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    given = json.dumps({**asked, "urls": list(urls)})
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=SECONDS, env=environment, cwd="/"
        )
        results = json.loads(done.stdout)["results"]
    except subprocess.TimeoutExpired:
        return ["It took too long."] * len(urls)
    except (OSError, ValueError, KeyError):
        return ["It could not be told."] * len(urls)
    return [str(each) for each in results]
