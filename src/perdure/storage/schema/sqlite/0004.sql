-- Mailboxes apart from what is kept. In an index over all messages, by actor and number, each actor adds to a page of its
-- own: under a long history every message costs a page of the log, and more time than all else that is written for it.

-- What is not handled: a message is in it from when it gets its number until its actor's cursor is there.
CREATE TABLE new_mailbox (
    actor   INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (actor, number)
) STRICT, WITHOUT ROWID;
INSERT INTO new_mailbox SELECT actor.id, number, seq FROM actor CROSS JOIN message
    ON message.actor = actor.id AND number > cursor;

-- For people who look at an actor: all that has a number, in blocks of 4,096 messages, each added at once when it is full.
CREATE TABLE filed (
    block   INTEGER NOT NULL,
    actor   INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (block, actor, number)
) STRICT, WITHOUT ROWID;
-- The first block that is not: from it on, messages are to be looked through.
CREATE TABLE unfiled (block INTEGER NOT NULL) STRICT;
INSERT INTO unfiled SELECT coalesce(max(seq) >> 12, 0) FROM message;
-- What is there already, from the index alone: read with all that was ever said, it would be too much for one look.
INSERT INTO filed SELECT seq >> 12, actor, number, seq FROM message
    WHERE number IS NOT NULL AND seq >> 12 < (SELECT block FROM unfiled) ORDER BY seq >> 12, actor, number;

DROP INDEX mailbox;
ALTER TABLE new_mailbox RENAME TO mailbox;

CREATE TRIGGER posted AFTER INSERT ON message WHEN new.number IS NOT NULL BEGIN
    INSERT INTO mailbox (actor, number, message) VALUES (new.actor, new.number, new.seq);
END;
CREATE TRIGGER handled AFTER UPDATE OF cursor ON actor WHEN new.cursor > old.cursor BEGIN
    DELETE FROM mailbox WHERE actor = new.id AND number <= new.cursor;
END;
CREATE TRIGGER renumbered AFTER UPDATE OF number ON message BEGIN
    DELETE FROM mailbox WHERE actor = old.actor AND number = old.number;
    DELETE FROM filed WHERE block = old.seq >> 12 AND actor = old.actor AND number = old.number;
    INSERT INTO mailbox (actor, number, message) VALUES (new.actor, new.number, new.seq);
    INSERT INTO filed (block, actor, number, message) SELECT new.seq >> 12, new.actor, new.number, new.seq
        WHERE new.seq >> 12 < (SELECT block FROM unfiled);
END;
CREATE TRIGGER unposted AFTER DELETE ON message BEGIN
    DELETE FROM mailbox WHERE actor = old.actor AND number = old.number;
    DELETE FROM filed WHERE block = old.seq >> 12 AND actor = old.actor AND number = old.number;
END;
