-- Many processes: signs of life, what a node has and is still to stop, and who goes on with an order.

-- A node raises `beats` while its event loop runs. `load` is how many actors it has in memory.
ALTER TABLE node ADD COLUMN beats INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN load INTEGER NOT NULL DEFAULT 0;

-- The node that starts a `restarting` actor; if there is none, or it has left or died, whoever finds the actor free does.
ALTER TABLE actor ADD COLUMN carrier TEXT;
CREATE INDEX unwanted ON actor (owner) WHERE owner IS NOT NULL AND (life <> 'running' OR status = 'stopped');
