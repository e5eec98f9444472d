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
DROP INDEX mailbox;
ALTER TABLE new_mailbox RENAME TO mailbox;

-- For people who look at an actor: all that has a number, in blocks of 4,096 messages, each added at once when it is full.
-- Behind the newest block here, messages are to be looked through.
CREATE TABLE filed (
    block   INTEGER NOT NULL,
    actor   INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (block, actor, number)
) STRICT, WITHOUT ROWID;

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
        WHERE new.seq >> 12 <= (SELECT max(block) FROM filed);
END;
CREATE TRIGGER unposted AFTER DELETE ON message BEGIN
    DELETE FROM mailbox WHERE actor = old.actor AND number = old.number;
    DELETE FROM filed WHERE block = old.seq >> 12 AND actor = old.actor AND number = old.number;
END;
