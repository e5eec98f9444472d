-- One application's actors, in a schema of its own. Times are seconds since the Unix epoch. JSON is text, as it was written.
-- What a table or a column is for stands in schema/sqlite/0001.sql and after; here stands what is otherwise.
--
-- Rows that are updated in place (actor, node, journal) have free space on their pages and no index over what changes at every
-- turn, so that an update leaves no work for vacuum: PostgreSQL then prunes a page when it is next read.

CREATE TABLE node (
    id      text COLLATE "C" PRIMARY KEY,
    pid     bigint NOT NULL,
    host    text NOT NULL,
    python  text NOT NULL,
    version text NOT NULL,
    started double precision NOT NULL,
    status  text NOT NULL DEFAULT 'live' CHECK (status IN ('live', 'left', 'dead')),
    batch   bigint NOT NULL DEFAULT 0,
    beats   bigint NOT NULL DEFAULT 0,
    load    bigint NOT NULL DEFAULT 0,
    runs    bigint NOT NULL DEFAULT 1,
    draining bigint NOT NULL DEFAULT 0,
    tags    text NOT NULL DEFAULT '[]',
    kinds   text NOT NULL DEFAULT '[]',
    ended   double precision,
    undertaker text COLLATE "C"
) WITH (fillfactor = 20);

CREATE TABLE actor (
    id         bigint PRIMARY KEY,
    kind       text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    owner      text COLLATE "C",
    epoch      bigint NOT NULL DEFAULT 0,
    tail       bigint NOT NULL DEFAULT 0,
    cursor     bigint NOT NULL DEFAULT 0,
    status     text NOT NULL DEFAULT 'ready' CHECK (status IN ('ready', 'waiting', 'parked', 'stopped')),
    reason     text,
    parent     bigint,
    created    double precision NOT NULL,
    life       text NOT NULL DEFAULT 'running' CHECK (life IN ('running', 'restarting', 'terminated', 'failed')),
    restart_at double precision,
    carrier    text COLLATE "C",
    offered    text COLLATE "C",
    -- What any node may claim. An index that named cursor and tail would be touched at every turn; this value does not
    -- change while somebody has the actor.
    runnable   boolean NOT NULL GENERATED ALWAYS AS
        (owner IS NULL AND status = 'ready' AND life = 'running' AND cursor < tail) STORED,
    UNIQUE (kind, key)
) WITH (fillfactor = 50);
CREATE INDEX runnable ON actor (kind) WHERE runnable;
CREATE INDEX owned ON actor (owner) WHERE owner IS NOT NULL;
CREATE INDEX offered ON actor (offered) WHERE offered IS NOT NULL;
CREATE INDEX restarting ON actor (id) WHERE life = 'restarting';
CREATE INDEX unwanted ON actor (owner) WHERE owner IS NOT NULL AND (life <> 'running' OR status = 'stopped');
CREATE INDEX parked ON actor (id) WHERE status = 'parked';
CREATE INDEX waiting ON actor (id) WHERE status = 'waiting';

CREATE TABLE snapshot (
    actor   bigint PRIMARY KEY,
    version bigint NOT NULL,
    codec   text NOT NULL,
    state   text NOT NULL,
    initial text
) WITH (fillfactor = 50);

CREATE TABLE message (
    seq     bigint PRIMARY KEY,
    id      text COLLATE "C" NOT NULL UNIQUE,
    actor   bigint NOT NULL,
    number  bigint,
    handler text NOT NULL,
    args    text NOT NULL,
    codec   text NOT NULL,
    chosen  bigint NOT NULL,
    cause   bigint,
    chain   text,
    sent    double precision NOT NULL,
    due     double precision,
    expires double precision
);
CREATE UNIQUE INDEX mailbox ON message (actor, number) WHERE number IS NOT NULL;
CREATE INDEX delayed ON message (due) WHERE number IS NULL;
CREATE INDEX caused ON message (cause) WHERE cause IS NOT NULL;

CREATE TABLE outcome (
    message  bigint PRIMARY KEY,
    status   text NOT NULL CHECK (status IN ('succeeded', 'rejected', 'cancelled', 'expired', 'dead')),
    result   text,
    error    text,
    changes  text,
    started  double precision,
    finished double precision NOT NULL
);
CREATE INDEX finished ON outcome (finished, message) WHERE status = 'dead';

CREATE TABLE turn (
    message   bigint PRIMARY KEY,
    attempts  bigint NOT NULL DEFAULT 0,
    blame     bigint NOT NULL DEFAULT 0,
    suspect   bigint NOT NULL DEFAULT 0,
    executing text COLLATE "C",
    retry_at  double precision,
    error     text,
    since     double precision
);
CREATE INDEX executing ON turn (executing) WHERE executing IS NOT NULL;

CREATE TABLE journal (
    message  bigint NOT NULL,
    key      text COLLATE "C" NOT NULL,
    kind     text NOT NULL CHECK (kind IN ('step', 'ask', 'receipt', 'sleep', 'tell', 'spawn', 'value')),
    name     text NOT NULL,
    digest   bytea,
    status   text NOT NULL CHECK (status IN ('started', 'completed', 'failed', 'cancelled')),
    attempt  bigint NOT NULL DEFAULT 1,
    position bigint,
    result   text,
    error    text,
    target   bigint,
    due      double precision,
    started  double precision NOT NULL,
    finished double precision,
    -- What indexes are over. None but where something waits, and so the same before and after the end of a step; indexes
    -- with `status` in their conditions would be touched by it.
    awaits   bigint GENERATED ALWAYS AS (CASE status WHEN 'started' THEN target END) STORED,
    wakes    double precision GENERATED ALWAYS AS (CASE status WHEN 'started' THEN due END) STORED,
    PRIMARY KEY (message, key)
) WITH (fillfactor = 70);
CREATE INDEX awaited ON journal (awaits) WHERE awaits IS NOT NULL;
CREATE INDEX timer ON journal (wakes) WHERE wakes IS NOT NULL;

CREATE TABLE child (
    actor       bigint PRIMARY KEY,
    supervisor  bigint NOT NULL,
    position    bigint NOT NULL,
    restart     text NOT NULL CHECK (restart IN ('permanent', 'transient', 'temporary')),
    shutdown    double precision,
    significant bigint NOT NULL DEFAULT 0,
    declared    bigint NOT NULL DEFAULT 0,
    cause       bigint
);
CREATE INDEX family ON child (supervisor, declared DESC, position);
CREATE INDEX significant ON child (supervisor) WHERE significant = 1;

CREATE TABLE restart (
    supervisor bigint NOT NULL,
    number     bigint NOT NULL,
    child      bigint NOT NULL,
    message    bigint,
    at         double precision NOT NULL,
    PRIMARY KEY (supervisor, number)
);

CREATE TABLE failure (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor    bigint NOT NULL,
    message  bigint,
    attempt  bigint NOT NULL,
    at       double precision NOT NULL,
    error    text NOT NULL,
    decision text NOT NULL,
    escaped  text
);
CREATE INDEX failures ON failure (actor, seq);
CREATE INDEX history ON failure (message) WHERE message IS NOT NULL;

CREATE TABLE watcher (
    actor     bigint NOT NULL,
    watcher   bigint NOT NULL,
    handler   text NOT NULL,
    parameter text NOT NULL,
    cause     bigint,
    PRIMARY KEY (actor, watcher, handler)
);

CREATE TABLE query (
    id       text COLLATE "C" PRIMARY KEY,
    actor    bigint NOT NULL,
    name     text NOT NULL,
    args     text NOT NULL,
    asker    text COLLATE "C" NOT NULL,
    deadline double precision NOT NULL,
    answered bigint NOT NULL DEFAULT 0,
    result   text,
    error    text
);

CREATE TABLE allowance (
    name       text COLLATE "C" PRIMARY KEY,
    concurrent bigint,
    rate       bigint,
    per        double precision NOT NULL,
    defined    double precision NOT NULL
);

CREATE TABLE slot (
    name    text COLLATE "C" NOT NULL,
    node    text COLLATE "C" NOT NULL,
    has     bigint NOT NULL,
    wants   bigint NOT NULL,
    waiting text NOT NULL,
    PRIMARY KEY (name, node)
) WITH (fillfactor = 50);

CREATE TABLE starts (
    name   text COLLATE "C" NOT NULL,
    slice  bigint NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (name, slice)
) WITH (fillfactor = 50);

-- Numbers are given in blocks, so that a node does not ask for each. They are no cursor: commits become visible out of
-- their order. Mailboxes are ordered by `message.number`, which is given while the actor's row is held.
CREATE SEQUENCE message_seq INCREMENT BY 32 MINVALUE 1;
CREATE SEQUENCE actor_id INCREMENT BY 32 MINVALUE 1;
