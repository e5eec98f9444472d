-- Supervision: who supervises whom, what was decided, and what went wrong.

-- What its supervisor wants of an actor. `running` says nothing of whether it is in memory; of a `restarting` one nothing
-- may begin before `restart_at` and before its elders run; the mail of a `terminated` or `failed` one is kept.
ALTER TABLE actor ADD COLUMN life TEXT NOT NULL DEFAULT 'running'
    CHECK (life IN ('running', 'restarting', 'terminated', 'failed'));
ALTER TABLE actor ADD COLUMN restart_at REAL;
DROP INDEX runnable;
CREATE INDEX runnable ON actor (kind) WHERE owner IS NULL AND status = 'ready' AND life = 'running' AND cursor < tail;
CREATE INDEX restarting ON actor (id) WHERE life = 'restarting';

-- When the time of its handler's timeout began to count anew, because somebody had the dead letter tried again.
ALTER TABLE turn ADD COLUMN since REAL;

-- A supervisor's child. Actors without a row are under the system's root, which counts the restarts of each alone.
CREATE TABLE child (
    actor       INTEGER PRIMARY KEY,
    supervisor  INTEGER NOT NULL,
    position    INTEGER NOT NULL,       -- start order: declared children first, then by position
    restart     TEXT NOT NULL CHECK (restart IN ('permanent', 'transient', 'temporary')),
    shutdown    REAL,                   -- seconds to stop in; 0: none (brutal), null: as long as it takes
    significant INTEGER NOT NULL DEFAULT 0,
    declared    INTEGER NOT NULL DEFAULT 0,
    cause       INTEGER                 -- the message that asked for it: asked again, it is the same child
) STRICT;
CREATE INDEX family ON child (supervisor, declared DESC, position);
CREATE INDEX significant ON child (supervisor) WHERE significant = 1;

-- The restarts a supervisor has made within its period. The root counts for each of its actors alone: there
-- `supervisor` is minus the actor's id.
-- `number` only rises: a decision made on other numbers than these is made again.
CREATE TABLE restart (
    supervisor INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    child      INTEGER NOT NULL,
    message    INTEGER,
    at         REAL NOT NULL,
    PRIMARY KEY (supervisor, number)
) STRICT, WITHOUT ROWID;

-- Every failure, as its supervisor was told of it, and what came of it.
CREATE TABLE failure (
    seq      INTEGER PRIMARY KEY,
    actor    INTEGER NOT NULL,
    message  INTEGER,                   -- none where no message is to blame
    attempt  INTEGER NOT NULL,
    at       REAL NOT NULL,
    error    TEXT NOT NULL,             -- JSON: type, text, lineage, traceback
    decision TEXT NOT NULL,
    escaped  TEXT                       -- JSON: keys of the steps whose errors the handler let out
) STRICT;
CREATE INDEX failures ON failure (actor, seq);
CREATE INDEX history ON failure (message) WHERE message IS NOT NULL;

-- Who is to be told when an actor ends: once, with a message to `handler` of `watcher`.
CREATE TABLE watcher (
    actor     INTEGER NOT NULL,
    watcher   INTEGER NOT NULL,
    handler   TEXT NOT NULL,
    parameter TEXT NOT NULL,
    cause     INTEGER,
    PRIMARY KEY (actor, watcher, handler)
) STRICT, WITHOUT ROWID;
