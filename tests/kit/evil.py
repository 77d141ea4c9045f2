"""Words of others that no terminal may be shown."""

from __future__ import annotations

#: What a terminal obeys, what ends a line for somebody, what turns or hides text, half a pair.
EVIL = "\x1b[2J\x1b]0;title\x07\r\n\t\x7f\x85\x9b31m\u2028\u2029\u202e\u2066\u200b\ufeff\x00\ud800"
