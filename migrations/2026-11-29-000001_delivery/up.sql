-- Delivery of events to endpoints of the application.

CREATE TABLE clerk.endpoints (
    name text PRIMARY KEY,
    url_digest text NOT NULL,
    types text[] NOT NULL,
    position bigint NOT NULL,
    redeliveries bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    removed_at timestamptz,
    paused_at timestamptz,
    next_attempt_at timestamptz,
    last_attempt_at timestamptz,
    last_status integer,
    last_error text,
    delivered_at timestamptz
);

COMMENT ON TABLE clerk.endpoints IS 'Where events are delivered, and how far';
COMMENT ON COLUMN clerk.endpoints.url_digest IS 'Digest of the URL, by which a renamed endpoint is recognized';
COMMENT ON COLUMN clerk.endpoints.types IS 'The types of events that it gets';
COMMENT ON COLUMN clerk.endpoints.position IS 'All events up to this id are delivered, or are in clerk.deliveries';
COMMENT ON COLUMN clerk.endpoints.redeliveries IS 'How often somebody has asked for events again; the leader then begins again from the position';
COMMENT ON COLUMN clerk.endpoints.started_at IS 'When the endpoint was first configured';
COMMENT ON COLUMN clerk.endpoints.removed_at IS 'When the endpoint was no longer configured; events do not wait for it';
COMMENT ON COLUMN clerk.endpoints.paused_at IS 'Since when the endpoint is tried only now and then; NULL if it works';
COMMENT ON COLUMN clerk.endpoints.next_attempt_at IS 'When a paused endpoint is tried again';
COMMENT ON COLUMN clerk.endpoints.last_status IS 'HTTP status of the last answer; NULL if the last attempt had no answer';
COMMENT ON COLUMN clerk.endpoints.last_error IS 'Why the last attempt failed; NULL if it succeeded';
COMMENT ON COLUMN clerk.endpoints.delivered_at IS 'When an event was last delivered';

CREATE TABLE clerk.deliveries (
    endpoint text NOT NULL REFERENCES clerk.endpoints ON UPDATE CASCADE ON DELETE CASCADE,
    resource text NOT NULL,
    object_id text NOT NULL,
    event_id bigint NOT NULL,
    waiting_since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    last_attempt_at timestamptz,
    last_status integer,
    last_error text,
    dead_at timestamptz,
    PRIMARY KEY (endpoint, resource, object_id, event_id),
    CONSTRAINT deliveries_dead_at_check CHECK (dead_at IS NULL OR next_attempt_at IS NULL)
);
CREATE INDEX deliveries_next_attempt_at_idx ON clerk.deliveries (endpoint, next_attempt_at, event_id, object_id)
    WHERE next_attempt_at IS NOT NULL;
CREATE INDEX deliveries_heads_idx ON clerk.deliveries (endpoint, resource, object_id) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX deliveries_event_id_idx ON clerk.deliveries (event_id) WHERE event_id > 0;
CREATE INDEX deliveries_dead_at_idx ON clerk.deliveries (endpoint, dead_at) WHERE dead_at IS NOT NULL;

COMMENT ON TABLE clerk.deliveries IS 'Events that an endpoint has not accepted yet although later ones were delivered';
COMMENT ON COLUMN clerk.deliveries.event_id IS 'The event; 0 for a created event that is made from the mirror''s row';
COMMENT ON COLUMN clerk.deliveries.waiting_since IS 'When the event was recorded, or when somebody last asked for it again';
COMMENT ON COLUMN clerk.deliveries.next_attempt_at IS 'When it is tried next, -infinity for at once; NULL if it waits for an earlier event of its object, or is dead';
COMMENT ON COLUMN clerk.deliveries.last_status IS 'HTTP status of the last answer; NULL if the last attempt had no answer';
COMMENT ON COLUMN clerk.deliveries.last_error IS 'Why the last attempt failed';
COMMENT ON COLUMN clerk.deliveries.dead_at IS 'When the last attempt had failed; it is not tried again unless somebody redelivers it';
