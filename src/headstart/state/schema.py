"""The tables of a host's state. Losing all of it costs the head start and never data."""

from __future__ import annotations

VERSION = 7

#: What finds our bitmaps again that a hypervisor forgot.
KEEPSAKES = """
CREATE TABLE keepsakes (
    vm TEXT NOT NULL REFERENCES vms(name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (vm, name)
) WITHOUT ROWID
"""

#: What was measured, a row a minute: for what is usual for a VM, and for the pictures.
FIGURES = """
CREATE TABLE figures (
    vm TEXT NOT NULL REFERENCES vms(name) ON DELETE CASCADE,
    moment INTEGER NOT NULL,       -- beginning of the minute, seconds since 1970
    load REAL,                     -- mean; NULL: no sensor said anything
    latency REAL,                  -- mean of the guest's writes, seconds; NULL: not known
    state TEXT NOT NULL,           -- of the governor, at the end of the minute
    copied INTEGER NOT NULL,       -- bytes read ahead in this minute
    remaining INTEGER NOT NULL,    -- bytes known to have changed and not copied, at its end
    deferred INTEGER NOT NULL,     -- those of them that are put off on purpose
    PRIMARY KEY (vm, moment)
) WITHOUT ROWID
"""

#: What was learned of each disk's blocks. Losing it costs some copies that are made twice.
HEATS = """
CREATE TABLE heats (
    vm TEXT NOT NULL REFERENCES vms(name) ON DELETE CASCADE,
    disk TEXT NOT NULL,
    heat BLOB NOT NULL,
    learned TEXT NOT NULL,         -- JSON
    PRIMARY KEY (vm, disk)
) WITHOUT ROWID
"""

#: VMs that the owner wants to be left alone.
PAUSES = """
CREATE TABLE pauses (
    vm TEXT PRIMARY KEY REFERENCES vms(name) ON DELETE CASCADE,
    since REAL NOT NULL
) WITHOUT ROWID
"""

#: The newest snapshot of a VM that this host has published.
POINTS = """
CREATE TABLE points (
    vm TEXT PRIMARY KEY REFERENCES vms(name) ON DELETE CASCADE,
    snapshot TEXT NOT NULL,
    created REAL NOT NULL          -- its point in time
) WITHOUT ROWID
"""

#: VMs whose agent delivered false blocks, and which nobody trusts since.
DISTRUSTS = """
CREATE TABLE distrusts (
    vm TEXT PRIMARY KEY REFERENCES vms(name) ON DELETE CASCADE,
    since REAL NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID
"""

#: When packs were last read back and found whole; and since when all of them are being read, if that was interrupted.
VERIFIED = """
CREATE TABLE verified (
    repository TEXT NOT NULL,
    pack BLOB NOT NULL,
    moment REAL NOT NULL,
    PRIMARY KEY (repository, pack)
) WITHOUT ROWID
"""
READINGS = """
CREATE TABLE readings (
    repository TEXT PRIMARY KEY,
    begun REAL NOT NULL
) WITHOUT ROWID
"""

#: Snapshots that this host has published, and what rehearsals have shown, for who keeps a catalogue of them. They
#: outlive their VM.
PUBLICATIONS = """
CREATE TABLE publications (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    moment REAL NOT NULL,          -- when, seconds since 1970
    facts TEXT NOT NULL            -- JSON, see headstart.state.outbox
)
"""

RUNS_BY_VM = "CREATE INDEX runs_by_vm ON runs (vm, number)"

#: What makes a state of one version one of the next.
UPGRADES = {
    1: ("ALTER TABLE vms ADD COLUMN uri TEXT", "ALTER TABLE vms ADD COLUMN domain TEXT", KEEPSAKES),
    2: (FIGURES, HEATS, PAUSES, POINTS, RUNS_BY_VM),
    # Who read what an older version had copied is not known: it is nobody's fault.
    3: ("ALTER TABLE copied ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0", DISTRUSTS),
    4: (VERIFIED, READINGS),
    5: (
        "ALTER TABLE vms ADD COLUMN volumes TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE vms ADD COLUMN track TEXT NOT NULL DEFAULT 'auto'",
        "ALTER TABLE disks ADD COLUMN excluded BLOB",
    ),
    6: (PUBLICATIONS,),
}

TABLES = (
    """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE vms (
    name TEXT PRIMARY KEY,
    monitor TEXT NOT NULL,         -- of plain QEMU; else ''
    agent TEXT,
    qga TEXT,
    excluded TEXT NOT NULL,        -- JSON list of disk names
    definition TEXT NOT NULL,      -- given by the user; empty: as the hypervisor reports it
    added REAL NOT NULL,
    uri TEXT,                      -- of libvirt, and
    domain TEXT,                   -- the domain's name or UUID there; NULL: plain QEMU
    volumes TEXT NOT NULL DEFAULT '[]', -- JSON list of patterns: what alone is backed up
    track TEXT NOT NULL DEFAULT 'auto' -- how changes are to be learned: tracking.choice.Wish
) WITHOUT ROWID;

-- What is known of each disk, as of the last contact.
CREATE TABLE disks (
    vm TEXT NOT NULL REFERENCES vms(name) ON DELETE CASCADE,
    disk TEXT NOT NULL,
    nonce TEXT NOT NULL,
    facts TEXT NOT NULL,           -- JSON: size, format, layers
    base TEXT NOT NULL,            -- id of the base mark
    snapshot TEXT,                 -- the published snapshot that the base mark precedes; NULL: none to trust
    round TEXT NOT NULL,           -- id of the newest round's mark; '' if there is none
    entire BLOB NOT NULL,          -- blocks that count as changed besides what the base mark recorded
    owed BLOB NOT NULL,            -- blocks that were identified as changed
    reason TEXT NOT NULL,          -- why the disk is compared; '' if it is not
    excluded BLOB,                 -- blocks that the snapshot was made without; NULL: none
    PRIMARY KEY (vm, disk)
) WITHOUT ROWID;

CREATE TABLE drafts (
    vm TEXT PRIMARY KEY REFERENCES vms(name) ON DELETE CASCADE,
    id TEXT NOT NULL,              -- of the snapshot that it becomes
    repository TEXT NOT NULL,      -- where its chunks are
    rounds INTEGER NOT NULL,
    records INTEGER NOT NULL,      -- objects of the draft in the repository
    next_rounds TEXT NOT NULL,     -- JSON list: rounds that were begun since the newest was read
    begun REAL NOT NULL
) WITHOUT ROWID;

-- The draft image: what has been copied ahead and is durable in the repository.
CREATE TABLE copied (
    vm TEXT NOT NULL REFERENCES vms(name) ON DELETE CASCADE,
    disk TEXT NOT NULL,
    block INTEGER NOT NULL,
    chunk BLOB,                    -- NULL: zeroes
    record INTEGER NOT NULL,       -- the object of the draft that will list it
    delivered INTEGER NOT NULL DEFAULT 0, -- 0: read from outside, 1: by the agent in the guest, 2...: by an appliance
    PRIMARY KEY (vm, disk, block)
) WITHOUT ROWID;

CREATE TABLE packs (
    vm TEXT NOT NULL REFERENCES vms(name) ON DELETE CASCADE,
    pack BLOB NOT NULL,
    PRIMARY KEY (vm, pack)
) WITHOUT ROWID;

-- A completion whose point in time is over and whose residue waits in the spool.
CREATE TABLE completions (
    vm TEXT PRIMARY KEY REFERENCES vms(name) ON DELETE CASCADE,
    id TEXT NOT NULL,
    facts TEXT NOT NULL            -- JSON, see headstart.state.encoding
) WITHOUT ROWID;

CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    vm TEXT NOT NULL,
    verb TEXT NOT NULL,
    begun REAL NOT NULL,
    ended REAL,
    report TEXT NOT NULL
);
"""
    + f"{KEEPSAKES};{FIGURES};{HEATS};{PAUSES};{POINTS};{DISTRUSTS};{VERIFIED};{READINGS};{PUBLICATIONS};"
    f"{RUNS_BY_VM};"
)
