-- One application's actors. Times are seconds since the Unix epoch (REAL). JSON is TEXT.

-- A process that opened this database. `batch` is its last transaction that left no message and no outcome, by which a
-- COMMIT whose answer was lost can be looked up.
CREATE TABLE node (
    id      TEXT PRIMARY KEY,
    pid     INTEGER NOT NULL,
    host    TEXT NOT NULL,
    python  TEXT NOT NULL,
    version TEXT NOT NULL,
    started REAL NOT NULL,
    status  TEXT NOT NULL DEFAULT 'live' CHECK (status IN ('live', 'left', 'dead')),
    batch   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- An actor: who may write it (owner and epoch are the fence), and how far its mailbox is handled.
-- Every number up to `cursor` has a durable outcome; `tail` is the last number given.
CREATE TABLE actor (
    id       INTEGER PRIMARY KEY,
    kind     TEXT NOT NULL,
    key      TEXT NOT NULL,
    owner    TEXT,
    epoch    INTEGER NOT NULL DEFAULT 0,
    tail     INTEGER NOT NULL DEFAULT 0,
    cursor   INTEGER NOT NULL DEFAULT 0,
    status   TEXT NOT NULL DEFAULT 'ready' CHECK (status IN ('ready', 'waiting', 'parked', 'stopped')),
    reason   TEXT,
    parent   INTEGER,
    created  REAL NOT NULL,
    UNIQUE (kind, key)
) STRICT;
-- What any node may claim. Rows with an owner are not in it, so a turn's commit does not touch it.
CREATE INDEX runnable ON actor (kind) WHERE owner IS NULL AND status = 'ready' AND cursor < tail;
CREATE INDEX owned ON actor (owner) WHERE owner IS NOT NULL;

-- The state after the last committed turn: a JSON object, one member a field. `initial` is what it was spawned with.
CREATE TABLE snapshot (
    actor   INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    codec   TEXT NOT NULL,
    state   TEXT NOT NULL,
    initial TEXT
) STRICT;

-- A message. `number` is its place in the mailbox: dense, and none until a delayed message falls due.
CREATE TABLE message (
    seq     INTEGER PRIMARY KEY,
    id      TEXT NOT NULL UNIQUE,
    actor   INTEGER NOT NULL,
    number  INTEGER,
    handler TEXT NOT NULL,
    args    TEXT NOT NULL,
    codec   TEXT NOT NULL,
    chosen  INTEGER NOT NULL,           -- 1: the sender chose the id, which then is remembered longer
    cause   INTEGER,                    -- the message whose turn sent this one
    chain   TEXT,                       -- asks waiting above this one, a JSON array of actors
    sent    REAL NOT NULL,
    due     REAL,                       -- not before
    expires REAL                        -- latest start
) STRICT;
CREATE UNIQUE INDEX mailbox ON message (actor, number) WHERE number IS NOT NULL;
CREATE INDEX delayed ON message (due) WHERE number IS NULL;
-- what a turn sent, for people who follow a message
CREATE INDEX caused ON message (cause) WHERE cause IS NOT NULL;

-- How a message ended: exactly one row for every message that has ended.
CREATE TABLE outcome (
    message  INTEGER PRIMARY KEY,
    status   TEXT NOT NULL CHECK (status IN ('succeeded', 'rejected', 'cancelled', 'expired', 'dead')),
    result   TEXT,                      -- JSON
    error    TEXT,                      -- JSON: type, text, args, traceback
    changes  TEXT,                      -- JSON: the fields of the state that this turn changed, as they became
    started  REAL,
    finished REAL NOT NULL
) STRICT;
CREATE INDEX finished ON outcome (status) WHERE status = 'dead';

-- A turn with a past: only messages that failed, were parked, or were running when a process died have a row.
CREATE TABLE turn (
    message   INTEGER PRIMARY KEY,
    attempts  INTEGER NOT NULL DEFAULT 0,   -- failed runs of the handler
    blame     INTEGER NOT NULL DEFAULT 0,   -- deaths of the process while it was executing
    suspect   INTEGER NOT NULL DEFAULT 0,   -- 1: was a mailbox's head when its process died; runs with a started-record
    executing TEXT,                         -- the started-record: the node it runs on, while not durably waiting
    retry_at  REAL,                         -- not before
    error     TEXT                          -- JSON: the last failure
) STRICT;
CREATE INDEX executing ON turn (executing) WHERE executing IS NOT NULL;

-- What a turn did, under keys that a replay finds again. `position` is the completion's place in the turn, in the
-- order in which results were handed to the handler; none while a reply waits to be handed over.
CREATE TABLE journal (
    message  INTEGER NOT NULL,
    key      TEXT NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN ('step', 'ask', 'receipt', 'sleep', 'tell', 'spawn', 'value')),
    name     TEXT NOT NULL,
    digest   BLOB,                      -- SHA-256 of the arguments; a check, never a key
    status   TEXT NOT NULL CHECK (status IN ('started', 'completed', 'failed', 'cancelled')),
    attempt  INTEGER NOT NULL DEFAULT 1,
    position INTEGER,
    result   TEXT,                      -- JSON
    error    TEXT,                      -- JSON
    target   INTEGER,                   -- the message whose outcome completes this record
    due      REAL,                      -- a sleep's end, a step's next attempt, an ask's deadline
    started  REAL NOT NULL,
    finished REAL,
    PRIMARY KEY (message, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX awaited ON journal (target) WHERE status = 'started' AND target IS NOT NULL;
CREATE INDEX timer ON journal (due) WHERE status = 'started' AND due IS NOT NULL;

-- The highest sequence number there was when retention last removed something: none is given twice.
CREATE TABLE removed (seq INTEGER NOT NULL) STRICT;
INSERT INTO removed VALUES (0);
