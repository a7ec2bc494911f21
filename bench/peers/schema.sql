-- The tables of all three peers. Only aio_pika_asyncpg writes outbox and inbox.

CREATE TABLE orders (
    id uuid PRIMARY KEY,
    created_at timestamptz NOT NULL,
    reference text,
    currency text NOT NULL,
    total bigint NOT NULL,
    status text NOT NULL,
    snapshot json NOT NULL
);

CREATE TABLE timeline (
    order_id uuid NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    time timestamptz NOT NULL,
    PRIMARY KEY (order_id, event_id)
);

CREATE TABLE invoice_counters (
    year integer PRIMARY KEY,
    last integer NOT NULL
) WITH (fillfactor = 10); -- leaves room for new versions of a row that is always updated

CREATE TABLE invoices (
    order_id uuid PRIMARY KEY,
    number text NOT NULL UNIQUE,
    total bigint NOT NULL,
    issued_at timestamptz NOT NULL,
    snapshot json NOT NULL
);

-- The payment provider's own ledger.
CREATE TABLE charges (
    id uuid PRIMARY KEY,
    key text NOT NULL UNIQUE,
    order_id uuid NOT NULL,
    amount bigint NOT NULL,
    currency text NOT NULL,
    payment_method text NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE payments (
    id uuid PRIMARY KEY,
    order_id uuid NOT NULL UNIQUE,
    provider_reference text NOT NULL,
    amount bigint NOT NULL,
    currency text NOT NULL,
    captured_at timestamptz NOT NULL
);

CREATE TABLE shipments (
    id uuid PRIMARY KEY,
    order_id uuid NOT NULL UNIQUE,
    carrier text NOT NULL,
    tracking_number text NOT NULL,
    booked_at timestamptz NOT NULL
);

CREATE TABLE mails (
    order_id uuid NOT NULL,
    stage text NOT NULL,
    recipient text NOT NULL,
    event json NOT NULL,
    state text NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (order_id, stage)
);

CREATE TABLE outbox (
    id uuid PRIMARY KEY,
    service text NOT NULL,
    type text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
CREATE INDEX outbox_waiting ON outbox (service, created_at) WHERE published_at IS NULL;

CREATE TABLE inbox (
    service text NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (service, event_id)
);
