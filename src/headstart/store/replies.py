"""What a server of objects answered, as an error for the user."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from headstart import errors, plain
from headstart.store import contract

#: Of a request, and of a part of a batch of Azure's.
_STATUS = re.compile(r"(?:non-2xx status code: |\(code: )(\d{3})")
#: Of S3 and Azure (XML), and of Google (JSON).
_CODE = re.compile(r"<Code>([^<]*)</Code>|\"reason\":\s*\"([^\"]*)\"")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>|\"message\":\s*\"([^\"]*)\"")
#: What stands in obstore's description of a request that was not answered, and what it means.
_CAUSES = (
    (re.compile(r"TimedOut|Timeout\b"), "no answer in time"),
    (re.compile(r"IncompleteMessage|ConnectionReset|BrokenPipe|UnexpectedEof|body error"), "the connection was cut"),
    (
        re.compile(r"UnknownIssuer|invalid peer certificate"),
        "the server's certificate is of an issuer that is not known",
    ),
)
#: The system's own words.
_SYSTEM = re.compile(r"(?:message|error): \"([^\"]+)\"")

#: Characters of what a server says.
_LONGEST = 300

_FULL = re.compile(r"quota|cap_?exceeded|insufficientstorage|storagefull|diskfull", re.IGNORECASE)
_NO_PLACE = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"}
_SKEWED = {"RequestTimeTooSkewed"}
_EXPIRED = {"ExpiredToken", "RequestExpired", "TokenRefreshRequired"}
_STRANGER = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthenticationFailed"}
#: Of our own: nobody said who we are.
_NOBODY = "NoCredentials"
_ELSEWHERE = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
#: With a status that says the caller's fault, and yet they pass.
_PASSING = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "SlowDown"}


@dataclass(frozen=True, slots=True)
class Reply:
    """``status`` of HTTP, None where there was no answer; ``code`` as the server names it, or empty; ``message``: what
    it says, or the system says of the connection."""

    status: int | None
    code: str
    message: str

    @property
    def taken(self) -> bool:
        """There is an object of that name."""
        return self.status == 412 or self.code in ("BlobAlreadyExists", "PreconditionFailed")

    @property
    def missing(self) -> bool:
        """There is no object of that name, in a bucket that is there."""
        return self.status == 404 and self.code not in _NO_PLACE


def of_text(text: str) -> Reply:
    """From the description of an error of obstore, the only place where it tells the status."""
    if "token request" in text and "metadata" in text.lower():
        return Reply(None, _NOBODY, "there are no credentials, and this is no machine of a cloud that has some")
    if "Wanted range starting at" in text:  # a server that answers with the whole object, or nothing of it
        return Reply(416, "", "it ends before")
    found = _STATUS.search(text)
    if found is None:
        return Reply(None, "", _cause(text))
    code, message = _first(_CODE, text), _first(_MESSAGE, text)
    return Reply(int(found[1]), code, message or code or f"status {found[1]}")


def error_of(reply: Reply, action: str) -> errors.HeadstartError:
    """``action``: ``read packs/ab in s3://bucket``. Which are ``Exists`` and ``Missing`` the caller knows better."""
    # Anybody may have written that: it must not speak to a terminal.
    failed = f"Could not {action}: {plain.line(html.unescape(reply.message), _LONGEST).rstrip('.')}."
    if reply.status == 507 or _FULL.search(reply.code):
        return errors.NoSpace(f"{failed} Make room there, raise the quota, or use another place.")
    advice = _advice(reply)
    if advice is not None:
        return contract.Refused(f"{failed} {advice}", status=reply.status, code=reply.code)
    return errors.StoreFailed(failed, status=reply.status, code=reply.code)


def _advice(reply: Reply) -> str | None:
    """None: it may pass by itself."""
    if reply.code in _NO_PLACE:
        return "Make the bucket, or correct the address."
    if reply.code in _SKEWED:
        return "The clock of this machine is wrong by more than a quarter of an hour: set it, best by NTP."
    if reply.code in _EXPIRED:
        return "The credentials have expired: get new ones."
    if reply.code == _NOBODY:
        return "Name them: see docs/object-storage.md."
    if reply.code in _STRANGER:
        return "The credentials are not right for this server: see AWS_PROFILE, AWS_ACCESS_KEY_ID and their like."
    if reply.code in _ELSEWHERE or reply.status in (301, 307):
        return "The bucket is in another region: set AWS_REGION to it."
    if reply.status in (401, 403):
        return "These credentials may not do that: see the rights that are needed in docs/object-storage.md."
    if reply.status is None:
        return _advice_without_answer(reply.message)
    if reply.code in _PASSING or reply.status in (408, 409, 425, 429) or reply.status >= 500:
        return None
    return "The server will not do it: check the address, and whether it is a server of this kind."


def _advice_without_answer(message: str) -> str | None:
    if "certificate" in message.lower():
        return "Set AWS_CA_BUNDLE to the file with the certificate of who issued it."
    return None


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return next((each for each in found.groups() if each), "") if found else ""


def _cause(text: str) -> str:
    for pattern, meaning in _CAUSES:
        if pattern.search(text):
            return meaning
    head = text.split("\n", 1)[0]
    return _first(_SYSTEM, text) or head.rpartition(" - ")[2]
