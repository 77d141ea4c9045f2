"""By kind, what does it."""

from __future__ import annotations

from headstart.server import kinds
from headstart.server.work import catalogue, copy, dump, forget, gc, recount, rehearse, remove, tidy, verify
from headstart.server.work.contract import Run

RUNS: dict[str, Run] = {
    kinds.FORGET.name: forget.run,
    kinds.GC.name: gc.run,
    kinds.VERIFY.name: verify.run,
    kinds.COPY.name: copy.run,
    kinds.REHEARSE.name: rehearse.run,
    kinds.RECOUNT.name: recount.run,
    kinds.CATALOGUE.name: catalogue.run,
    kinds.REMOVE.name: remove.run,
    kinds.TIDY.name: tidy.run,
    kinds.DUMP.name: dump.run,
}
