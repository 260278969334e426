// A reader of clerk.user_events; docs/events.md explains it. It needs Node 20 or newer, the packages pg and tsx (@types/pg to check types), and
// the tables that reader.sql makes.
//
//   DATABASE_URL=postgres://… node --import tsx reader.ts
//
// Any number may run under one name: they take turns, and each event is handled once.

import pg from "pg";

const READER = "accounts";
/** Most events in one transaction. */
const BATCH = 100;
/** How often to look when no notification comes. */
const POLL_MS = 10_000;
/** `events.keep` of clerk2pg less a day: whoever was away for longer starts over. */
const KEEP = "29 days";

/** Clerk's webhook event. With @clerk/backend: `import type { UserWebhookEvent } from "@clerk/backend"`, or its `WebhookEvent`. */
type UserEvent = { object: "event"; timestamp: number; instance_id: string } & (
  | { type: "user.created" | "user.updated"; data: User }
  | { type: "user.deleted"; data: { id?: string; object: string; deleted: boolean; external_id?: string | null } }
);

/** What this file needs of Clerk's user; all of it is there. */
interface User {
  id: string;
  primary_email_address_id: string | null;
  email_addresses: { id: string; email_address: string }[] | null;
}

/** A row of clerk.user_events. `id` is a bigint, which pg gives as a string. */
interface Row {
  id: string;
  user_id: string;
  occurred_at: Date;
  changed: string[];
  payload: UserEvent;
  recorded_at: Date;
}

/** Your part. What is done through `tx` is done once, with the position; all else can happen again after a crash. */
async function handle(event: UserEvent, row: Row, tx: pg.ClientBase): Promise<void> {
  switch (event.type) {
    case "user.created":
      await saveAccount(event.data, tx);
      return addJob("welcome", row, tx);
    case "user.updated":
      await saveAccount(event.data, tx);
      if (row.changed.includes("email_addresses") || row.changed.includes("primary_email_address_id")) {
        await addJob("new_address", row, tx);
      }
      return;
    case "user.deleted":
      await tx.query("DELETE FROM app.accounts WHERE user_id = $1", [row.user_id]);
      return addJob("farewell", row, tx);
  }
}

async function saveAccount(user: User, tx: pg.ClientBase): Promise<void> {
  const email = user.email_addresses?.find(({ id }) => id === user.primary_email_address_id)?.email_address;
  await tx.query(
    "INSERT INTO app.accounts (user_id, email) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET email = excluded.email",
    [user.id, email],
  );
}

async function addJob(kind: string, row: Row, tx: pg.ClientBase): Promise<void> {
  await tx.query("INSERT INTO app.jobs (kind, user_id, event_id) VALUES ($1, $2, $3)", [kind, row.user_id, row.id]);
}

/** Your part at the first start and after a long absence: bring your tables in sync with the users as they are now. */
async function reconcile(tx: pg.ClientBase): Promise<void> {
  await tx.query(`
    INSERT INTO app.accounts AS a (user_id, email) SELECT id, primary_email FROM clerk.users WHERE deleted_at IS NULL
    ON CONFLICT (user_id) DO UPDATE SET email = excluded.email WHERE a.email IS DISTINCT FROM excluded.email`);
  await tx.query(`
    DELETE FROM app.accounts a
    WHERE NOT EXISTS (SELECT FROM clerk.users u WHERE u.id = a.user_id AND u.deleted_at IS NULL)`);
}

/** Says what there is to do; writes nothing, so that an idle reader does not either. */
async function look(client: pg.Client): Promise<{ start_over: boolean; due: boolean }> {
  const { rows } = await client.query(
    `SELECT
         -- Not before the first full sync is done, as that one makes no events.
         s.imported_at IS NOT NULL
         AND (p.reader IS NULL
             OR p.read_to < now() - $2::interval
             -- The schema clerk was made anew, and its ids began again.
             OR coalesce(p.last_id > e.newest, false)) AS start_over,
         coalesce(p.last_id < e.newest OR p.read_to < now() - interval '1 hour', false) AS due
     FROM clerk.resource_state s
     CROSS JOIN (SELECT max(id) AS newest FROM clerk.user_events) e
     LEFT JOIN app.clerk_events_read p ON p.reader = $1
     WHERE s.resource = 'users'`,
    [READER, KEEP],
  );
  return rows[0];
}

/**
 * One snapshot for the position and the users: whatever is not in these users comes as an event after this position. If several start at
 * once, one gets through; the others fail with 40001 and look again.
 */
async function startOver(client: pg.Client): Promise<void> {
  await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
  await client.query(
    `INSERT INTO app.clerk_events_read (reader, last_id, read_to)
     SELECT $1, coalesce(max(id), 0), now() FROM clerk.user_events
     ON CONFLICT (reader) DO UPDATE SET last_id = excluded.last_id, read_to = excluded.read_to`,
    [READER],
  );
  await reconcile(client);
  await client.query("COMMIT");
  console.log("started from clerk.users");
}

/** Handles the next events and advances the position, in one transaction. Says whether there may be more. */
async function batch(client: pg.Client, limit = BATCH): Promise<boolean> {
  // A process that vanished with its machine gives up its lock on the position after this time.
  await client.query("BEGIN; SET LOCAL idle_in_transaction_session_timeout = '60s'");
  // Whoever else reads under this name waits here, and then goes on from the new position.
  const position = await client.query("SELECT last_id FROM app.clerk_events_read WHERE reader = $1 FOR UPDATE", [READER]);
  const { rows } = await client.query<Row>(
    `SELECT id, user_id, occurred_at, changed, payload, recorded_at
     FROM clerk.user_events WHERE id > $1 ORDER BY id LIMIT $2`,
    [position.rows[0].last_id, limit],
  );

  let done = 0;
  try {
    for (const row of rows) {
      if (stopping) break;
      await handle(row.payload, row, client);
      done += 1;
    }
  } catch (error) {
    await client.query("ROLLBACK");
    // Those before it need not wait for its mend.
    if (done > 0) return batch(client, done);
    throw new Error(`event ${rows[0]?.id} of ${rows[0]?.user_id} cannot be handled`, { cause: error });
  }

  const more = rows.length === limit || done < rows.length;
  const last = rows[done - 1];
  if (last || !more) {
    await client.query(
      `UPDATE app.clerk_events_read SET last_id = coalesce($2, last_id), read_to = coalesce($3, now()) WHERE reader = $1`,
      [READER, last?.id, more ? last?.recorded_at : null],
    );
  }
  await client.query("COMMIT");
  return more;
}

let stopping = false;
let rung = false;
let ring = (): void => void (rung = true);

/** Waits for so long, or until somebody rings. */
async function pause(ms: number): Promise<void> {
  if (!rung && !stopping) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      ring = () => {
        rung = true;
        clearTimeout(timer);
        resolve();
      };
    });
  }
  rung = false;
}

async function follow(client: pg.Client, well: () => void): Promise<void> {
  client.on("notification", () => ring());
  await client.connect();
  // Names are PostgreSQL's own or written with their schema, so that nobody's look-alikes are found.
  await client.query("SET search_path = ''");
  // Before the first look, so that nothing comes between.
  await client.query("LISTEN clerk_user_events");
  while (!stopping) {
    const { start_over, due } = await look(client);
    if (start_over) await startOver(client);
    else if (!due || !(await batch(client))) await pause(POLL_MS);
    well();
  }
}

async function main(): Promise<void> {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    // A second one ends the process at once, which is safe too.
    process.once(signal, () => {
      stopping = true;
      ring();
    });
  }
  let wait = 1_000;
  while (!stopping) {
    const client = new pg.Client({
      connectionString: process.env.DATABASE_URL,
      application_name: "clerk events reader",
      connectionTimeoutMillis: 10_000,
      // Notices a connection that died without a word. Longer than any batch, for which another reader may have to wait.
      query_timeout: 60_000,
    });
    // Without a listener a lost connection would end the process.
    client.on("error", () => ring());
    try {
      await follow(client, () => (wait = 1_000));
    } catch (error) {
      // What was open is rolled back by the server.
      console.error(`again in ${wait / 1_000} s:`, error);
      client.removeAllListeners("notification");
      rung = false;
      await pause(wait);
      wait = Math.min(wait * 2, 60_000);
    } finally {
      client.end().catch(() => {});
    }
  }
  // Normally the process ends with its connection; it does not wait for one that hangs.
  setTimeout(() => process.exit(), 2_000).unref();
}

void main();
