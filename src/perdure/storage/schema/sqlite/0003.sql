-- Many processes: signs of life, what a node has and is still to stop, and who goes on with an order.

-- A node raises `beats` while its event loop runs. `load` is how many actors it has in memory; `tags` and
-- `kinds` are JSON arrays: what it has that actors may need, and what it runs, as far as it knew when it entered.
ALTER TABLE node ADD COLUMN beats INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN load INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE node ADD COLUMN kinds TEXT NOT NULL DEFAULT '[]';
-- When it left or was buried: it is remembered as long as history is, however long it had run.
ALTER TABLE node ADD COLUMN ended REAL;

-- The node that starts a `restarting` actor; if there is none, or it has left or died, whoever finds the actor free does.
ALTER TABLE actor ADD COLUMN carrier TEXT;
-- The node that an actor of nobody is offered to: while that one lives, nobody else takes it.
ALTER TABLE actor ADD COLUMN offered TEXT;
CREATE INDEX offered ON actor (offered) WHERE offered IS NOT NULL;
CREATE INDEX unwanted ON actor (owner) WHERE owner IS NOT NULL AND (life <> 'running' OR status = 'stopped');

-- Of an actor that has an owner, `tail` may be behind: what the owner sent since is counted by the index `mailbox` alone.

-- Whether it runs actors: a client (0) only sends and asks, and is given none. Whether it gives them up, and is offered none.
ALTER TABLE node ADD COLUMN runs INTEGER NOT NULL DEFAULT 1;
ALTER TABLE node ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
-- The node that frees what a dead one had, some at a time; none once all of it is. If it leaves or dies, another goes on.
ALTER TABLE node ADD COLUMN undertaker TEXT;

-- A query on its way to whoever has the actor, and its answer on the way back. No message: it is gone within seconds, and
-- nothing rests on it. Whoever asked removes it; or whoever buries him.
CREATE TABLE query (
    id       TEXT PRIMARY KEY,          -- made up by whoever asks
    actor    INTEGER NOT NULL,
    name     TEXT NOT NULL,
    args     TEXT NOT NULL,             -- JSON
    asker    TEXT NOT NULL,             -- the node that asks
    deadline REAL NOT NULL,             -- when it waits no more; that it is over says the row's absence
    answered INTEGER NOT NULL DEFAULT 0,
    result   TEXT,                      -- JSON
    error    TEXT                       -- JSON, as an outcome's
) STRICT, WITHOUT ROWID;

-- A limit across the deployment, as the node defines it that was started last.
CREATE TABLE allowance (
    name       TEXT PRIMARY KEY,
    concurrent INTEGER,                 -- how many turns or steps at once
    rate       INTEGER,                 -- how many may begin within any `per` seconds
    per        REAL NOT NULL,
    defined    REAL NOT NULL            -- when that node was started
) STRICT, WITHOUT ROWID;

-- How many slots of a limit a node has, and how many it could use. They are free again when the node leaves, or is buried.
CREATE TABLE slot (
    name    TEXT NOT NULL,
    node    TEXT NOT NULL,
    has     INTEGER NOT NULL,
    wants   INTEGER NOT NULL,
    waiting TEXT NOT NULL,              -- JSON: messages that wait for the limit on it; for people, and not always up to date
    PRIMARY KEY (name, node)
) STRICT, WITHOUT ROWID;

-- How many turns and steps were let begin in a slice of time. `slice` counts slices of their limit's length from 1970 on.
CREATE TABLE starts (
    name   TEXT NOT NULL,
    slice  INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (name, slice)
) STRICT, WITHOUT ROWID;

-- Outcomes and the journal once more, under other checks. For every statement that writes a row, `IN` over a list makes
-- a table of that list first, which cost as much as the row; comparisons cost next to nothing.
CREATE TABLE new_outcome (
    message  INTEGER PRIMARY KEY,
    status   TEXT NOT NULL CHECK (
        status = 'succeeded' OR status = 'rejected' OR status = 'cancelled' OR status = 'expired' OR status = 'dead'
    ),
    result   TEXT,                      -- JSON
    error    TEXT,                      -- JSON: type, text, args, traceback
    changes  TEXT,                      -- JSON: the fields of the state that this turn changed, as they became
    started  REAL,
    finished REAL NOT NULL
) STRICT;
INSERT INTO new_outcome SELECT message, status, result, error, changes, started, finished FROM outcome;
DROP TABLE outcome;
ALTER TABLE new_outcome RENAME TO outcome;
-- What died last, for people who look: numbers are no order of time where processes are given blocks of them.
CREATE INDEX finished ON outcome (finished, message) WHERE status = 'dead';

CREATE TABLE new_journal (
    message  INTEGER NOT NULL,
    key      TEXT NOT NULL,
    kind     TEXT NOT NULL CHECK (
        kind = 'step' OR kind = 'ask' OR kind = 'receipt' OR kind = 'sleep' OR kind = 'tell' OR kind = 'spawn'
        OR kind = 'value'
    ),
    name     TEXT NOT NULL,
    digest   BLOB,                      -- SHA-256 of the arguments; a check, never a key
    status   TEXT NOT NULL CHECK (
        status = 'started' OR status = 'completed' OR status = 'failed' OR status = 'cancelled'
    ),
    attempt  INTEGER NOT NULL DEFAULT 1,
    position INTEGER,
    result   TEXT,                      -- JSON
    error    TEXT,                      -- JSON
    target   INTEGER,                   -- the message whose outcome completes this record
    due      REAL,                      -- a sleep's end, a step's next attempt, an ask's deadline
    started  REAL NOT NULL,
    finished REAL,
    -- The message that an open record awaits, and when it is to be looked at again; none once it is complete.
    awaits   INTEGER GENERATED ALWAYS AS (CASE status WHEN 'started' THEN target END) VIRTUAL,
    wakes    REAL GENERATED ALWAYS AS (CASE status WHEN 'started' THEN due END) VIRTUAL,
    PRIMARY KEY (message, key)
) STRICT, WITHOUT ROWID;
INSERT INTO new_journal SELECT message, key, kind, name, digest, status, attempt, position, result, error, target, due,
    started, finished FROM journal;
DROP TABLE journal;
ALTER TABLE new_journal RENAME TO journal;
CREATE INDEX awaited ON journal (awaits) WHERE awaits IS NOT NULL;
CREATE INDEX timer ON journal (wakes) WHERE wakes IS NOT NULL;
