-- Many processes: what a node has and is still to stop, and who goes on with an order.

-- The node that starts a `restarting` actor; if there is none, or it has left or died, whoever finds the actor free does.
ALTER TABLE actor ADD COLUMN carrier TEXT;
CREATE INDEX unwanted ON actor (owner) WHERE owner IS NOT NULL AND (life <> 'running' OR status = 'stopped');
