"""What answers mean. These are those of servers that the other tests have not: as obstore described them."""

from __future__ import annotations

import pytest

from headstart import errors
from headstart.store import replies
from headstart.store.contract import Refused

AZURE_TAKEN = (
    "Object at location packs/one already exists: Error performing PUT http://h/c/packs/one in 1ms - Server returned"
    ' non-2xx status code: 409 Conflict: <?xml version="1.0" encoding="UTF-8"?><Error><Code>BlobAlreadyExists</Code>'
    "<Message>The specified blob already exists.</Message></Error>"
)
AZURE_GONE = (
    "Object at location p/packs/one not found: Bulk delete request failed for key p/packs/one: The specified blob does"
    " not exist. (code: 404)"
)
AZURE_RANGE = "Generic MicrosoftAzure error: Wanted range starting at 10, but object was only 10 bytes long"
GOOGLE_TAKEN = (
    "Object at location x already exists: Error performing PUT https://storage.googleapis.com/b/x in 1ms - Server"
    " returned non-2xx status code: 412 Precondition Failed: <Error><Code>PreconditionFailed</Code></Error>"
)
GOOGLE_NOBODY = (
    "Generic GCS error: Error performing token request: Error performing GET http://169.254.169.254/computeMetadata/v1/"
    "instance/service-accounts/default/token in 1ms - HTTP error: error sending request"
)
GOOGLE_NO_BUCKET = (
    "Object at location x not found: Error performing GET https://storage.googleapis.com/b/x in 1ms - Server returned"
    " non-2xx status code: 404 Not Found: <Error><Code>NoSuchBucket</Code><Message>No.</Message></Error>"
)
GOOGLE_BUSY = (
    "Generic GCS error: Error performing PUT https://storage.googleapis.com/b/x in 1ms - Server returned non-2xx status"
    ' code: 429 Too Many Requests: {"error": {"errors": [{"reason": "rateLimitExceeded", "message": "Slow down."}]}}'
)
NO_NAME = (
    "Generic S3 error: Error performing GET http://nowhere.invalid/b/x in 1ms - HTTP error: error sending request\n\n"
    'Debug source:\n Connect, ConnectError( "dns error", Custom { kind: Uncategorized, error: "failed to lookup address'
    ' information: Name or service not known", }, )'
)


@pytest.mark.parametrize("text", [AZURE_TAKEN, GOOGLE_TAKEN])
def test_replies_that_mean_a_name_is_taken(text: str) -> None:
    assert replies.of_text(text).taken


@pytest.mark.parametrize(("text", "missing"), [(AZURE_GONE, True), (GOOGLE_NO_BUCKET, False), (AZURE_TAKEN, False)])
def test_replies_that_mean_an_object_is_missing(text: str, missing: bool) -> None:
    assert replies.of_text(text).missing is missing


def test_a_server_does_not_speak_to_the_terminal() -> None:
    text = "non-2xx status code: 500: <Error><Message>It&apos;s \x1b[2J\n" + "long " * 1000 + "</Message></Error>"
    said = str(replies.error_of(replies.of_text(text), "read x"))
    assert said.startswith("Could not read x: It's ")
    assert said.isprintable() and len(said) < 400


def test_a_range_past_the_end() -> None:
    assert replies.of_text(AZURE_RANGE).status == 416


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (GOOGLE_NOBODY, Refused, "no credentials.*docs/object-storage.md"),
        (GOOGLE_NO_BUCKET, Refused, "Make the bucket"),
        (GOOGLE_BUSY, errors.StoreFailed, "Slow down"),
        (NO_NAME, errors.StoreFailed, "Name or service not known"),
    ],
)
def test_replies_are_told_to_people_in_words(text: str, kind: type[Exception], said: str) -> None:
    error = replies.error_of(replies.of_text(text), "read x in gs://b")
    assert type(error) is kind
    with pytest.raises(kind, match=f"Could not read x in gs://b: .*{said}"):
        raise error
